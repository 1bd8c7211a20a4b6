"""Questions that say nearly the same: they must not be divided between training and judging."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from clasp_calib.router_labeling.rules import normalise

SIMILAR = 0.7
"""Our choice: two questions are near-duplicates if they share this much of all words that either has."""


def duplicate_groups(questions: Sequence[str], similar: float = SIMILAR) -> list[int]:
    """A group number for each question: near-duplicates, and near-duplicates of these, have the same.

    Two questions are near-duplicates if the Jaccard similarity of their sets of words is ``similar`` or more. All
    such pairs are found: of each question, its rarest words are looked up, as many as one of which a near-duplicate
    must share (prefix filtering, https://doi.org/10.1145/1242572.1242591).

    Args:
        questions: texts.
        similar: in (0, 1].
    """
    sets = [frozenset(re.findall(r"\w+", normalise(question))) or frozenset([question]) for question in questions]
    different = list(dict.fromkeys(sets))
    frequency = Counter(word for words in different for word in words)
    groups = _Groups(len(different))
    holders: dict[str, list[int]] = {}
    # Shorter sets first: a candidate is then never longer than the question that finds it.
    for place in sorted(range(len(different)), key=lambda i: len(different[i])):
        words = different[place]
        rarest = sorted(words, key=lambda word: (frequency[word], word))
        shortest = math.ceil(similar * len(words) - 1e-9)
        for word in rarest[: len(words) - shortest + 1]:
            for other in holders.get(word, ()):
                if len(different[other]) >= shortest and groups.of(other) != groups.of(place):
                    shared = len(words & different[other])
                    if shared >= similar * (len(words) + len(different[other]) - shared) - 1e-9:
                        groups.join(other, place)
            holders.setdefault(word, []).append(place)
    number = {words: groups.of(place) for place, words in enumerate(different)}
    return [number[words] for words in sets]


class _Groups:
    """Union-find."""

    def __init__(self, size: int):
        self._above = list(range(size))

    def of(self, place: int) -> int:
        while self._above[place] != place:
            self._above[place] = self._above[self._above[place]]
            place = self._above[place]
        return place

    def join(self, first: int, second: int) -> None:
        self._above[self.of(first)] = self.of(second)
