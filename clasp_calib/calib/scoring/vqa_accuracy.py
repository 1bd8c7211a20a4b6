"""VQA's soft accuracy (https://visualqa.org/evaluation.html): an answer counts as far as the annotators gave it.

The normalisation is that of the official script, with its quirks, so that numbers compare.
"""

import re
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
        InputError: there are fewer than four.
    """
    if len(references) < 4:
        raise InputError(
            f"the metric vqa needs the answers of all annotators (VQA has {ANNOTATORS}), each as often as it was "
            f"given; got {list(references)}: for one accepted answer take exact_match"
        )
    said = normalised(answer)
    agree = [said == normalised(reference) for reference in references]
    return sum(min(1.0, (sum(agree) - one) / 3) for one in agree) / len(agree)


@cache
def normalised(text: str) -> str:
    """An answer as the official script compares it: without punctuation and articles, numbers as digits."""
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
