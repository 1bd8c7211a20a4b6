"""The last question in a prompt that a server has rendered: what a router is to see of it."""

import re
from collections.abc import Callable, Sequence
from typing import Any

QUESTION = "{question}"
_FIRST, _SAID, _LAST = "clasp0first", "clasp1said", "clasp2last"
"""Stand in for the turns of a dialogue; nothing that a template would change."""


class LastQuestion:
    """Takes the last turn of the user out of a prompt, without template and pictures.

    A prompt is text again after it was tokens, and a tokenizer may have changed its case and its white space.

    Args:
        before: what the template puts before a turn of the user; empty: it begins behind the last mark.
        behind: what stands behind the last one.
        marks: what stands for pictures and for no text.
        instruction: what the calibration had behind every question.
    """

    def __init__(self, before: str, behind: str, marks: Sequence[str], instruction: str = "") -> None:
        self._before = _loose(before) if before.strip() else None
        self._behind = _loose(behind) if behind.strip() else None
        self._instruction = re.compile(rf"{_words(instruction)}\s*$", re.IGNORECASE) if instruction.strip() else None
        self._marks = re.compile(
            "|".join(map(re.escape, sorted(filter(None, marks), key=len, reverse=True))) or r"(?!)"
        )

    @classmethod
    def of(
        cls, prompt: str, render: Callable[[list[dict[str, Any]]], str] | None, marks: Sequence[str]
    ) -> "LastQuestion":
        """What fits a model.

        Args:
            prompt: the template of the calibration, with ``{question}``.
            render: the chat template, from messages to text that asks for an answer; ``None`` if there is none.
            marks: the tokenizer's special tokens, and those of pictures.
        """
        lead, _, rest = prompt.partition(QUESTION)
        for mark in sorted(marks, key=len, reverse=True):
            lead = lead.replace(mark, "\0") if mark else lead
        if render is None:
            own = lead.rpartition("\0")[2] if "\0" in lead else lead
            return cls(own, rest, marks)
        text = render([_turn("user", _FIRST), _turn("assistant", _SAID), _turn("user", _LAST)])
        between, _, behind = text.partition(_SAID)[2].partition(_LAST)
        before = _common_end(text.partition(_FIRST)[0], between)
        found = _loose(behind).search(rest) if behind.strip() else None
        return cls(before, behind, marks, rest[: found.start()] if found else "")

    def __call__(self, prompt: str) -> str:
        """The question in a prompt; all of the prompt's text where it follows no template."""
        text = prompt
        if self._behind and (ends := list(self._behind.finditer(text))):
            text = text[: ends[-1].start()]
        if begins := list((self._before or self._marks).finditer(text)):
            text = text[begins[-1].end() :]
        text = self._marks.sub(" ", text).strip()
        return self._instruction.sub("", text).strip() if self._instruction else text


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _common_end(first: str, second: str) -> str:
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return first[len(first) - length :]


def _words(text: str) -> str:
    return r"\s*".join(map(re.escape, text.split()))


def _loose(text: str) -> re.Pattern[str]:
    return re.compile(_words(text), re.IGNORECASE)
