"""A question as word pieces: places in the vocabulary of BERT (uncased), which comes with this package.

Words are cut as BERT's tokenizer cuts them (https://arxiv.org/abs/1810.04805, section 4.1; the procedure is that of
https://arxiv.org/abs/1609.08144): the longest piece first, pieces after the first marked with ``##``. What a word is
`ngrams.canonical` says, which keeps underscores and Chinese characters in a row together; words of more than 40
characters are unknown.
"""

import unicodedata
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from clasp_calib.router_labeling.taxonomy import packaged

VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
"""Hex sha256 of the file; a network on other pieces cannot be read."""
SIZE = 30522
LONGEST = 48
"""Pieces of a question that are looked at, its two ends included. Our choice: it bounds the time a question takes. Of a
longer one the first half and the last are looked at, since a question may stand before its context or behind it."""
_UNKNOWN, _START, _END = 100, 101, 102
_LONGEST_WORD = 40


def piece_ids(text: str) -> NDArray[np.int64]:
    """``[pieces]``, from 2 to `LONGEST`: the start, the pieces of each word, and the end.

    Args:
        text: as `ngrams.canonical` gives it: words with one space between, and a mark at either end.
    """
    found = [piece for word in text.split(" ")[1:-1] if word for piece in _pieces(word)]
    half = (LONGEST - 2) // 2
    kept = found if len(found) <= 2 * half else found[:half] + found[-half:]
    return np.array([_START, *kept, _END])


def spelled(ids: NDArray[np.integer]) -> str:
    """The text of pieces; the start is ``^`` and the end ``$``, as in `ngrams.canonical`."""
    ends = {_START: "^", _END: "$"}
    words = [ends.get(place) or _words()[place] for place in ids.tolist()]
    return " ".join(words).replace(" ##", "").removeprefix("##")


def _pieces(word: str) -> tuple[int, ...]:
    # Accents may stand beside their letters.
    return _cut(word) if len(word) <= 4 * _LONGEST_WORD else (_UNKNOWN,)


@lru_cache(maxsize=1 << 13)
def _cut(word: str) -> tuple[int, ...]:
    places = _places()
    bare = "".join(one for one in unicodedata.normalize("NFD", word) if unicodedata.category(one) != "Mn")
    if bare in places:
        return (places[bare],)
    if not 0 < len(bare) <= _LONGEST_WORD:
        return (_UNKNOWN,)
    found, begin = [], 0
    while begin < len(bare):
        mark = "##" if begin else ""
        end = next((end for end in range(len(bare), begin, -1) if mark + bare[begin:end] in places), None)
        if end is None:
            return (_UNKNOWN,)
        found.append(places[mark + bare[begin:end]])
        begin = end
    return tuple(found)


@cache
def _places() -> dict[str, int]:
    return {word: place for place, word in enumerate(_words())}


@cache
def _words() -> list[str]:
    return packaged("assets/minilm-vocabulary.txt").read_text(encoding="utf-8").splitlines()
