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
        first: what the template puts before the first turn of the user; empty: it begins behind the last mark.
        later: what stands between an answer and the next turn of the user.
        behind: what stands behind the last one.
        marks: what stands for pictures and for no text.
        instruction: what the calibration had behind every question.
    """

    def __init__(self, first: str, later: str, behind: str, marks: Sequence[str], instruction: str = "") -> None:
        self._first, self._later, self._behind = map(_patterns, (first, later, behind))
        self._instruction = re.compile(rf"{_words(instruction)}\s*$", re.IGNORECASE) if instruction.strip() else None
        listed = sorted(filter(None, marks), key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, listed)) or r"(?!)")

    @classmethod
    def of(
        cls, prompt: str, render: Callable[[list[dict[str, Any]]], str] | None, marks: Sequence[str]
    ) -> "LastQuestion":
        """What fits a model.

        Args:
            prompt: the template of the calibration, with ``{question}``.
            render: the chat template, from messages to text that asks for an answer; ``None`` if there is none.
            marks: the tokenizer's special tokens, and those of pictures.

        Raises:
            ValueError: the template leaves messages out.
        """
        lead, _, rest = prompt.partition(QUESTION)
        for mark in sorted(marks, key=len, reverse=True):
            lead = lead.replace(mark, "\0") if mark else lead
        if render is None:
            return cls(lead.rpartition("\0")[2] if "\0" in lead else lead, "", rest, marks)
        text = render([turn("user", _FIRST), turn("assistant", _SAID), turn("user", _LAST)])
        if not all(said in text for said in (_FIRST, _SAID, _LAST)):
            raise ValueError("the chat template leaves messages out")
        between, _, behind = text.partition(_SAID)[2].partition(_LAST)
        found = _last(_patterns(behind), rest)
        first = _common_end(text.partition(_FIRST)[0], between)
        return cls(first, between, behind, marks, rest[: found.start()] if found else "")

    def __call__(self, prompt: str) -> tuple[str, bool]:
        """The question in a prompt, and whether it follows the template; else all of its text is the question."""
        text, end = prompt, _last(self._behind, prompt)
        if end:
            text = text[: end.start()]
        begin = _last(self._later, text)
        if begin is None:
            # What the user writes may look like the template: of the first turn the first counts.
            begin = next((of for pattern in self._first if (of := pattern.search(text))), None)
        if begin is None and not self._first:
            begin = _last([self._marks], text)
        text = self._marks.sub(" ", text[begin.end() :] if begin else text).strip()
        question = self._instruction.sub("", text).strip() if self._instruction else text
        return question, bool(begin or end)


def turn(role: str, text: str) -> dict[str, Any]:
    """A message of a dialogue, as chat templates of models of pictures take it."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _common_end(first: str, second: str) -> str:
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return first[len(first) - length :]


def _words(text: str) -> str:
    return r"\s*".join(map(re.escape, text.split()))


def _patterns(text: str) -> list[re.Pattern[str]]:
    """With any white space, no part of a longer word; in its own case rather than in another."""
    if not text.strip():
        return []
    boundary = r"(?<!\w)" if text.strip()[0].isalnum() else ""
    return [re.compile(boundary + _words(text), flags) for flags in (re.NOFLAG, re.IGNORECASE)]


def _last(patterns: Sequence[re.Pattern[str]], text: str) -> re.Match[str] | None:
    for pattern in patterns:
        if found := list(pattern.finditer(text)):
            return found[-1]
    return None
