"""What one answer is worth against the accepted references, by the published definitions: each a number in [0, 1].

All take a generated answer and the references of its sample, and raise InputError where these cannot be what the
metric compares with.
"""

import re
import string
from collections.abc import Sequence

from clasp_calib.common.errors import InputError

TOLERANCE = 0.05
"""Largest relative error of a number under relaxed accuracy."""
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER = re.compile(rf"[-+]?\d[\d,]*(?:\.\d+)?|\b(?:{'|'.join(NUMBERS)})\b")
_LETTER = re.compile(r"\(?([A-Za-z])\)?\s*[.:]?|\(?([A-Z])(?:[.:)]).*", re.DOTALL)
_ANSWER_IS = re.compile(r"answer is:?\s*\(?([A-Z])\b")


def exact(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference, to the letter; outer white space does not count."""
    return float(answer.strip() in {reference.strip() for reference in references})


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference after case, punctuation and white space are folded."""
    return float(any(_folded(answer) == _folded(reference) for reference in references))


def multiple_choice(answer: str, references: Sequence[str]) -> float:
    """1 if the answer names the option that is the reference: by its letter, or, if that is a reference too, its text.

    The letter may stand alone, before the option's text (``B. a cat``, ``(B) a cat``), or in a sentence (``The answer
    is B.``), as LLaVA's evaluation of ScienceQA reads it.
    """
    letter = _letter(answer.strip())
    accepted = [reference.strip() for reference in references]
    by_letter = letter is not None and any(letter == _letter(reference) for reference in accepted)
    return float(by_letter or exact_match(answer, references) == 1)


def yes_no(answer: str, references: Sequence[str]) -> float:
    """1 if the first *yes* or *no* of the answer is the reference; neither is wrong."""
    gold, said = gold_of(references), re.search(r"\b(yes|no)\b", answer.casefold())
    return float(said is not None and said.group() == gold)


def pope(answer: str, references: Sequence[str]) -> float:
    """1 if the answer, read as POPE's script does, is the reference (https://arxiv.org/abs/2305.10355).

    Of the first sentence: *no* if one of its words is ``No``, ``no`` or ``not``, *yes* otherwise.
    """
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    said = "no" if {"No", "no", "not"} & set(words) else "yes"
    return float(said == gold_of(references))


def mme(answer: str, references: Sequence[str]) -> float:
    """1 if the answer, read as MME's script does, is the reference (https://arxiv.org/abs/2306.13394).

    *yes* or *no* must stand within the first four characters; anything else is wrong.
    """
    start = answer.strip().lower()[:4]
    said = "yes" if "yes" in start else "no" if "no" in start else "other"
    return float(said == gold_of(references))


def relaxed(answer: str, references: Sequence[str]) -> float:
    """ChartQA's relaxed accuracy: numbers may be 5 % off, texts must agree but for case (arXiv 2203.10244, 5.1)."""

    def right(reference: str) -> bool:
        said, gold = _as_number(answer), _as_number(reference)
        if said is not None and gold:
            return abs(said - gold) / abs(gold) <= TOLERANCE
        return answer.strip().lower() == reference.strip().lower()

    return float(any(right(reference) for reference in references))


def numeric(answer: str, references: Sequence[str]) -> float:
    """1 if the first number in the answer, in digits or as a word up to twenty, is that of a reference.

    Raises:
        InputError: a reference holds no number.
    """
    said, gold = _first_number(answer), [_first_number(reference) for reference in references]
    if None in gold:
        raise InputError(f"the metric numeric compares numbers, and {list(references)} has an answer without one")
    return float(said is not None and said in gold)


def anls(answer: str, references: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest reference, 0 under one half (arXiv 1907.00490, eq. 1).

    Case and runs of white space do not count.
    """
    said, best = " ".join(answer.lower().split()), 0.0
    for reference in references:
        gold = " ".join(reference.lower().split())
        longest = max(len(said), len(gold))
        best = max(best, 1 - levenshtein(said, gold) / longest if longest else 1.0)
    return best if best > 0.5 else 0.0


def levenshtein(one: str, other: str) -> int:
    """Insertions, deletions and replacements of a character that make one text of the other."""
    row = list(range(len(other) + 1))
    for count, character in enumerate(one, start=1):
        before, row[0] = row[0], count
        for place, wanted in enumerate(other, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (character != wanted))
    return row[-1]


def gold_of(references: Sequence[str]) -> str:
    """The reference of a yes-or-no question.

    Raises:
        InputError: it is neither, or both.
    """
    gold = {_folded(reference) for reference in references}
    if gold not in ({"yes"}, {"no"}):
        raise InputError(f"a yes-or-no question has the answers {list(references)}; expected yes or no")
    return gold.pop()


def _folded(text: str) -> str:
    bare = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())


def _letter(text: str) -> str | None:
    found = _LETTER.fullmatch(text) or _ANSWER_IS.search(text)
    return next(group for group in found.groups() if group).upper() if found else None


def _as_number(text: str) -> float | None:
    bare = text.strip()
    try:
        return float(bare[:-1]) / 100 if bare.endswith("%") else float(bare)
    except ValueError:
        return None


def _first_number(text: str) -> float | None:
    found = _NUMBER.search(text.casefold())
    if found is None:
        return None
    return float(NUMBERS.index(found.group())) if found.group() in NUMBERS else float(found.group().replace(",", ""))
