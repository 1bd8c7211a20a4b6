"""Questions changed as people's differ: other words in their places, lead-ins, answer formats, small omissions."""

import random
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS, COMMON = 12, 12_000
"""Neighbours of a word that may stand for it; BERT's vocabulary is ordered by frequency."""
_WORD = re.compile(r"[a-z]{3,}")
_ASKING = """
a an the this that these those it its he she they them his her their we us our you your i my what which who
whom whose where when why how many much number count total is are was were be been being do does did doing
done has have had having can could should would will shall may might must not no yes or and but if then than
as of in on at by to from with without for about into over under above below behind before after between next
beside near left right top bottom front back side here there any some all both each every more most less least
same other another one two three four five first last different kind type sort color colour size shape made
see seen visible shown picture photo image say says read written tell name please happening used use time
place looking going make taken
"""
_KEPT = frozenset(_ASKING.split())
"""Words that make a question what it is."""
_BEFORE = (
    "hey, ", "please tell me ", "can you tell me ", "i wonder ", "ok so ", "quick question: ", "looking at this, ",
    "in this picture, ", "just curious, ", "um, ", "could you say ", "do you know ", "hi! ", "in the photo: ",
    "from what you see, ", "<image> ",
)  # fmt: skip
_BEHIND = (
    " please", " in this picture", " in the image", " here", " thanks", " exactly", " do you think",
    " if you can tell", " in your view",
)  # fmt: skip
_FORMATS = (
    " Answer the question using a single word or phrase.", " Answer with one word.", " Answer yes or no.",
    " Answer with the option's letter from the given choices directly.", " Explain briefly.", " Be specific.",
)  # fmt: skip


def neighbours(words: Sequence[str], vectors: NDArray[np.float32], wanted: Sequence[str]) -> Mapping[str, list[str]]:
    """Word -> the words whose vectors are nearest to its own.

    Args:
        words: that there are, plain ones, most frequent first.
        vectors: ``[words, width]``.
        wanted: words to find neighbours of; those without a vector get none.
    """
    places = {word: place for place, word in enumerate(words)}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = {}
    for word in sorted({*wanted} & {*places}):
        near = np.argpartition(-(unit @ unit[places[word]]), NEIGHBOURS)[:NEIGHBOURS]
        found[word] = [words[place] for place in near.tolist() if words[place] != word]
    return found


def content_words(question: str) -> list[str]:
    """The words of a question that others may stand for."""
    return [word for word in _WORD.findall(question.casefold()) if word not in _KEPT]


def noised(question: str, near: Mapping[str, list[str]], common: Sequence[str], rng: random.Random) -> str:
    """A question like this one.

    Args:
        question: to change.
        near: of words, what may stand for them.
        common: words, any of which may now and then.
        rng: decides.
    """
    parts = [_exchanged(part, near, common, rng) for part in re.findall(r"\w+|\W+", question)]
    text = " ".join("".join(parts).split())
    if rng.random() < 0.2:
        text = rng.choice(_BEFORE) + text[:1].lower() + text[1:]
    if rng.random() < 0.12:
        text = text.rstrip("?. ") + rng.choice(_BEHIND) + ("?" if rng.random() < 0.5 else "")
    if rng.random() < 0.06:
        text += rng.choice(_FORMATS)
    if rng.random() < 0.25:
        text = text.lower()
    if rng.random() < 0.25:
        text = text.rstrip("?")
    return text


def _exchanged(part: str, near: Mapping[str, list[str]], common: Sequence[str], rng: random.Random) -> str:
    word = part.casefold()
    if not _WORD.fullmatch(word) or word in _KEPT:
        return "" if part.strip() and rng.random() < 0.02 else part
    draw = rng.random()
    if draw < 0.30 and word in near:
        return rng.choice(near[word])
    if draw < 0.42:
        return rng.choice(common)
    return "" if draw < 0.45 else part
