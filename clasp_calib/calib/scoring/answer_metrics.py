"""What one answer is worth against the accepted references, by the published definitions: each a number in [0, 1].

All take a generated answer and the references of its sample, and raise InputError where these cannot be what the
metric compares with.
"""

import itertools
import re
import string
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from clasp_calib.calib.scoring.folding import folded, plain
from clasp_calib.calib.scoring.numerals import first_number, whole_number
from clasp_calib.common.errors import InputError

TOLERANCE = Fraction(5, 100)
"""Largest relative error of a number under relaxed accuracy."""
_LETTER = re.compile(r"\(?([A-Za-z])\)?\s*[.:]?|\(?([A-Z])(?:[.:)]|\s*\n).*", re.DOTALL)
_OPTION = re.compile(r"(?:^|[\s(])([A-Za-z])[.):]\s*\S")
_ANSWER_IS = re.compile(r"(?:[Aa]nswer(?: is:?|:)|[Oo]ption)\s*\(?([A-Z])\b")


def exact(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference, to the letter; outer white space does not count."""
    return float(answer.strip() in {reference.strip() for reference in references})


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference in the form of `clasp_calib.calib.scoring.folding.folded`.

    Case, punctuation, white space and Unicode form do not count; the sign and the point of a number do.
    """
    return float(any(folded(answer) == folded(reference) for reference in references))


def multiple_choice(answer: str, references: Sequence[str]) -> float:
    """1 if the answer names the option that is the reference: by its letter, or, if that is a reference too, its text.

    The letter may stand alone, before the option's text (``B. a cat``, ``(B) a cat``), or in a sentence (``The answer
    is B.``), as LLaVA's evaluation of ScienceQA reads it.
    """
    letter = letter_of(answer.strip())
    accepted = [reference.strip() for reference in references]
    by_letter = letter is not None and any(letter == letter_of(reference) for reference in accepted)
    return float(by_letter or exact_match(answer, references) == 1)


def yes_no(answer: str, references: Sequence[str]) -> float:
    """1 if the first *yes* or *no* of the answer is the reference; neither is wrong."""
    gold, said = gold_of(references), re.search(r"\b(yes|no)\b", plain(answer))
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
    """1 as ChartQA's relaxed accuracy has it (arXiv 2203.10244, 5.1): at most 5 % off, or the same text but for case.

    As in ``relaxed_correctness`` of https://github.com/google-research/pix2struct, 50 % is 0.5, and a reference of 0
    is a text. Our choice: what has commas between thousands, a sign of currency or a typographic minus is a number too.
    """

    def right(reference: str) -> bool:
        said, gold = _value(answer), _value(reference)
        if said is not None and gold:
            return abs(said - gold) / abs(gold) <= TOLERANCE
        return plain(answer).strip() == plain(reference).strip()

    return float(any(right(reference) for reference in references))


def numeric(answer: str, references: Sequence[str]) -> float:
    """1 if the first number in the answer, in digits or in English words, is that of a reference.

    What a number is, and what is none since it is unclear which, `clasp_calib.calib.scoring.numerals` says.

    Raises:
        InputError: a reference holds no number.
    """
    said, gold = first_number(answer), [number for one in references if (number := first_number(one)) is not None]
    if len(gold) < len(references):
        raise InputError(
            f"the metric numeric compares numbers, and {list(references)} has an answer without a clear one"
        )
    return float(said is not None and any(said.same(number) for number in gold))


def anls(answer: str, references: Sequence[str]) -> float:
    """Normalised Levenshtein similarity to the nearest reference, 0 up to one half (arXiv 1907.00490, eq. 1).

    Case and runs of white space do not count, as in the script of DocVQA (https://rrc.cvc.uab.es/?ch=17&com=tasks),
    which however lets one half count. Our choice: composed and decomposed letters are the same.
    """
    said, best = _spaced(answer), 0.0
    for reference in references:
        gold = _spaced(reference)
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
    gold = {folded(reference) for reference in references}
    if gold not in ({"yes"}, {"no"}):
        raise InputError(f"a yes-or-no question has the answers {list(references)}; expected yes or no")
    return gold.pop()


def check_letters(question: str, references: Sequence[str]) -> None:
    """Refuse answers to a question of multiple choice of which none names one of its options by letter.

    Args:
        question: with its options, as ``A. ice B. fog`` or ``(A) ice (B) fog``, if it says them.
        references: the accepted answers.

    Raises:
        InputError: there is no letter among them, or none of an option in the question.
    """
    named = {letter for reference in references if (letter := letter_of(reference.strip()))}
    if not named:
        raise InputError(
            f"the metric multiple_choice compares letters of options, and {list(references)} has none; give "
            "the letter, such as B, and beside it the option's text if that is right too (option number 0 is A)"
        )
    found = {letter.upper() for letter in _OPTION.findall(question)}
    offered = list(itertools.takewhile(found.__contains__, string.ascii_uppercase))
    if len(offered) > 1 and not named & set(offered):
        raise InputError(
            f"the answers {list(references)} name no option of the question, which has {offered[0]} to {offered[-1]}; "
            "mend the letter"
        )


def letter_of(text: str) -> str | None:
    """The letter of the option that a text names, in upper case."""
    found = _LETTER.fullmatch(text) or _ANSWER_IS.search(text)
    return next(group for group in found.groups() if group).upper() if found else None


def _value(text: str) -> Fraction | None:
    number = whole_number(text)
    return None if number is None else number.value / (100 if number.percent else 1)


def _spaced(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).lower().split())
