"""ROUGE-L of a caption, as the evaluation of COCO captions computes it."""

import re
from collections.abc import Sequence
from functools import lru_cache

from clasp_calib.common.errors import InputError

BETA = 1.2
"""Weight of recall against precision."""
_ONE_FORM = str.maketrans(
    {**dict.fromkeys("‘’`", "'"), **dict.fromkeys("“”", '"'), **dict.fromkeys("–—", "-"), "…": "."}
)
_CLITIC = r"'(?:s|m|d|re|ve|ll)\b"
_ABBREVIATED = r"\b(?:(?:[a-z]\.)+(?!\w)|(?:mr|mrs|ms|dr|st|ave|rd|jr|sr|vs|etc|co|inc|ft|mt)\.|no\.(?=\s?\d))"
_TOKEN = re.compile(
    rf"{_ABBREVIATED}|can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|\w+(?=n't\b)|n't\b|{_CLITIC}|'\d0s\b"
    rf"|\d+(?:[.,:]\d+)+|[!?]{{2,}}|\w+(?:(?:[-/._]|(?<!\d)(?!{_CLITIC})')\w+)*|\S"
)
_DROPPED = frozenset("'\".?!,:;-")


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words (Lin, 2004, https://aclanthology.org/W04-1013).

    As ``rouge.py`` of https://github.com/tylin/coco-caption: the best precision of any reference is joined with the
    best recall of any, and recall counts `BETA` ** 2 times as much. Our choice: an answer without a word scores 0.

    Args:
        answer: what was generated.
        references: captions of the same picture.

    Raises:
        InputError: no reference has a word.
    """
    said, wanted = caption_words(answer), [words for one in references if (words := caption_words(one))]
    if not wanted:
        raise InputError(f"the metric rouge_l compares words, and {list(references)} have none; give captions")
    common = [_longest_common(said, words) for words in wanted]
    if not any(common):
        return 0.0
    precision = max(common) / len(said)
    recall = max(shared / len(words) for shared, words in zip(common, wanted, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


@lru_cache(4096)
def caption_words(text: str) -> tuple[str, ...]:
    """The words of a caption in lower case, without punctuation, as the Penn Treebank divides them.

    COCO's evaluation has Stanford's tokenizer do this, in Java. Here is what captions need of it: *n't*, *'s* and the
    like are words, those with a hyphen or slash are one, abbreviations keep their points, brackets count as words.
    """
    words = _TOKEN.findall(text.lower().translate(_ONE_FORM))
    return tuple(word for word in words if word not in _DROPPED)


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, wanted in enumerate(other, start=1):
            before, row[place] = row[place], before + 1 if word == wanted else max(row[place], row[place - 1])
    return row[-1]
