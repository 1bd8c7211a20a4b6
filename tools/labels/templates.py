"""Question templates: ``{slot}`` is an entry of a word list, ``(a|b)`` is one of these, ``[a]`` is a or nothing."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Part: TypeAlias = "str | Slot | Choice"
_MARKS = re.compile(r"([{}()\[\]|])")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])")


@dataclass(frozen=True)
class Slot:
    """A place for an entry of the word list of this name."""

    name: str


@dataclass(frozen=True)
class Choice:
    """One of several sequences of parts; an empty one stands for nothing."""

    options: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True)
class Template:
    """A form that questions of an intent have."""

    intent: str
    parts: tuple[Part, ...]

    def draw(self, words: Mapping[str, Sequence[str]], rng: random.Random) -> str:
        """A question of this form; "a" before a vowel becomes "an"."""
        text = " ".join(_drawn(self.parts, words, rng).split())
        return _ARTICLE.sub(r"\1n ", text)


def parse(intent: str, text: str) -> Template:
    """The template that a text spells.

    Raises:
        ValueError: brackets do not match, or a slot is not closed.
    """
    tokens = [token for token in _MARKS.split(text) if token]
    options, rest = _options(tokens, None, text)
    if rest or len(options) > 1:
        raise ValueError(f"brackets do not match in {text!r}")
    return Template(intent, options[0])


def read_templates(path: Path) -> list[Template]:
    """Of a file with an intent, a tab and a template in each line.

    Raises:
        ValueError: a line has no tab, or is no template.
    """
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [parse(intent, text) for intent, text in lines]


def _options(tokens: list[str], closed_by: str | None, text: str) -> tuple[list[tuple[Part, ...]], list[str]]:
    options: list[tuple[Part, ...]] = []
    parts: list[Part] = []
    while tokens:
        token, *tokens = tokens
        if token == closed_by:
            return [*options, tuple(parts)], tokens
        if token == "|" and closed_by == ")":
            options, parts = [*options, tuple(parts)], []
        elif token == "{":
            if tokens[1:2] != ["}"]:
                raise ValueError(f"a slot is not closed in {text!r}")
            parts.append(Slot(tokens[0]))
            tokens = tokens[2:]
        elif token in ("(", "["):
            inner, tokens = _options(tokens, ")" if token == "(" else "]", text)
            parts.append(Choice(tuple(inner) if token == "(" else (*inner, ())))
        elif token in (")", "]", "}"):
            raise ValueError(f"brackets do not match in {text!r}")
        else:
            parts.append(token)
    if closed_by:
        raise ValueError(f"brackets do not match in {text!r}")
    return [tuple(parts)], []


def _drawn(parts: Sequence[Part], words: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
        elif isinstance(part, Slot):
            text += rng.choice(words[part.name])
        else:
            text += _drawn(rng.choice(part.options), words, rng)
    return text
