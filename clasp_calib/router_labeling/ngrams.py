"""Hashed n-grams of words and characters: what the router sees of a question.

A question in the form of `canonical` is one line of text; every n-gram is a span of it. A span's hash is a polynomial
in its code points modulo 2**64. All spans are hashed at once: with ``prefix[j] = sum of (code + 1) * BASE**i`` over
``i < j``, a span's polynomial is ``(prefix[end] - prefix[start]) * BASE**-start``, as in Rabin and Karp's search
(https://doi.org/10.1147/rd.312.0249). The kind of the n-gram is mixed in, and the top bits are the bucket.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from clasp_calib.router_labeling.rules import NORMALISATION, normalise

VERSION = 1
"""Of the hash and of `canonical`; a router that was trained with another one cannot be read."""
LONGEST = 2000
"""Characters that are looked at. Our choice: it bounds the time that a question can take."""
WORD, CHARACTER = 0, 1

_BASE = 0x9E3779B97F4A7C15
_MODULUS = 1 << 64
_KIND_SALTS = np.array([0x2545F4914F6CDD1D, 0xD6E8FEB86659FD93], np.uint64)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_TOKEN = re.compile(r"\w+|[^\w\s]")
_START, _END = "^", "$"


@dataclass(frozen=True)
class Hashing:
    """Which n-grams there are, and into how many buckets they go."""

    bits: int = 16
    """There are ``2**bits`` buckets."""
    words: tuple[int, ...] = (1, 2)
    """Lengths of word n-grams, in words; punctuation and the two ends of the question count as words."""
    characters: tuple[int, ...] = (3, 4, 5)
    """Lengths of character n-grams; they may reach over spaces."""
    normalisation: int = NORMALISATION
    version: int = VERSION


@dataclass(frozen=True)
class Spans:
    """The n-grams of one question, as parts of its canonical text."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    kinds: NDArray[np.int64]
    """`WORD` or `CHARACTER`."""


def canonical(question: str) -> str:
    """The text whose parts are n-grams: normalised, words and marks with one space between, ``^`` and ``$`` around."""
    return f"{_START} {' '.join(_TOKEN.findall(normalise(question[:LONGEST])))} {_END}"


def spans(text: str, hashing: Hashing) -> Spans:
    """Every n-gram of a canonical text, repeated ones included, words first."""
    places = np.flatnonzero(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) == ord(" "))
    begins = np.concatenate([[0], places + 1])
    finishes = np.concatenate([places, [len(text)]])
    starts, ends = [], []
    for n in hashing.words:
        count = max(0, len(begins) - n + 1)
        starts.append(begins[:count])
        ends.append(finishes[len(finishes) - count :])
    words = sum(len(s) for s in starts)
    for n in hashing.characters:
        first = np.arange(max(0, len(text) - n + 1))
        starts.append(first)
        ends.append(first + n)
    start = np.concatenate(starts)
    kinds = np.full(len(start), CHARACTER)
    kinds[:words] = WORD
    return Spans(start, np.concatenate(ends), kinds)


def buckets(text: str, found: Spans, bits: int) -> NDArray[np.int64]:
    """The bucket of each n-gram, in ``[0, 2**bits)``.

    Args:
        text: the canonical text.
        found: n-grams of it, as `spans` gives them.
        bits: 1 to 63.
    """
    powers, inverses = _powers(max(len(text), 1))
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + np.uint64(1)
    prefix = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(codes * powers[: len(text)], out=prefix[1:])
    mixed = (prefix[found.ends] - prefix[found.starts]) * inverses[found.starts] ^ _KIND_SALTS[found.kinds]
    # The finaliser of splitmix64: without it, similar n-grams would fall into neighbouring buckets.
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return (mixed >> np.uint64(64 - bits)).astype(np.int64)


def features(question: str, hashing: Hashing) -> NDArray[np.int64]:
    """The different buckets of a question's n-grams, ascending; how often one occurs does not count."""
    return features_of(canonical(question), hashing)


def features_of(text: str, hashing: Hashing) -> NDArray[np.int64]:
    """The same of a canonical text."""
    return np.unique(buckets(text, spans(text, hashing), hashing.bits))


def _powers(length: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """``BASE**i`` and ``BASE**-i`` modulo 2**64 for ``i`` below ``length`` or more."""
    return _power_table(1 << (length - 1).bit_length())


@cache
def _power_table(length: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    # The base is odd, so it has an inverse.
    bases = (_BASE, pow(_BASE, -1, _MODULUS))
    tables = []
    for base in bases:
        values = [1]
        for _ in range(length - 1):
            values.append(values[-1] * base % _MODULUS)
        tables.append(np.array(values, np.uint64))
    return tables[0], tables[1]
