"""VQA's soft accuracy (https://visualqa.org/evaluation.html): an answer counts as far as the annotators gave it.

The normalisation is that of the official script, with its quirks, so that numbers compare.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from clasp_calib.common.errors import InputError

ANNOTATORS = 10
"""Answers that a question of VQA has; fewer than four cannot make an answer wholly right."""
_NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# Words that get back an apostrophe that they lack; one that lacks two does not.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've won't would've wouldn't wouldn't've y'all
    y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_APOSTROPHES = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED.split()
    for place, character in enumerate(word)
    if character == "'"
} | {"somebody'd": "somebodyd"}


def vqa(answer: str, references: Sequence[str]) -> float:
    """Mean over all leave-one-out sets of annotators of ``min(1, annotators of the set who say so / 3)``.

    Our choice: answers are normalised also where all annotators agree; the official script compares them as they are.

    Args:
        answer: what was generated.
        references: one an annotator, so that the same text may occur several times.

    Raises:
        InputError: there are fewer than four, or no answer can be one of them.
    """
    return _agreement("vqa", normalised(answer), references, [normalised(reference) for reference in references])


def textvqa(answer: str, references: Sequence[str]) -> float:
    """The same as `vqa` with the normalisation of TextVQA's evaluation.

    That is ``EvalAIAnswerProcessor`` of https://github.com/facebookresearch/mmf: commas and question marks go first,
    and *'s* becomes a word of its own.

    Args:
        answer: what was generated.
        references: one an annotator.

    Raises:
        InputError: as `vqa`.
    """
    return _agreement("textvqa", _of_textvqa(answer), references, [_of_textvqa(reference) for reference in references])


@cache
def normalised(text: str) -> str:
    """An answer as the official script compares it: without punctuation and articles, numbers up to ten as digits.

    https://github.com/GT-Vision-Lab/VQA, ``vqaEval.py``: a hyphen is punctuation there, so that -5 is 5; a period is
    kept before a digit. Our choice: composed and decomposed letters, and both kinds of apostrophe, are the same.
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    text = re.sub(r"[\n\t]", " ", text).strip()
    bare = text
    thousands = re.search(r"\d,\d", text) is not None
    for mark in _PUNCTUATION:
        # One that touches a space vanishes wherever it stands, and others become spaces.
        beside_space = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if beside_space or thousands else " ")
    bare = re.sub(r"\.(?!\d)", "", bare)
    words = [_NUMBERS.get(word, word) for word in bare.lower().split()]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def _of_textvqa(text: str) -> str:
    return normalised(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def _agreement(name: str, said: str, references: Sequence[str], gold: Sequence[str]) -> float:
    if len(references) < 4:
        raise InputError(
            f"the metric {name} needs the answers of all annotators (VQA has {ANNOTATORS}), each as often as it was "
            f"given; got {list(references)}: for one accepted answer take exact_match"
        )
    if not any(gold):
        raise InputError(f"the metric {name} drops punctuation and articles, which is all that {list(references)} are")
    agree = [said == reference for reference in gold]
    return sum(min(1.0, (sum(agree) - one) / 3) for one in agree) / len(agree)
