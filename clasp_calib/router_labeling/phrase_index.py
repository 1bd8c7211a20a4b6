"""Which rules a question can match at all, judged by its words alone: most rules need not be tried.

Of each phrase one word is chosen that must occur wherever the phrase does, the one that fewest phrases of the file
share. A rule can match only if one of its phrases' words is in the question.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"\w+")
_Words = frozenset[str]


class PhraseIndex:
    """Words -> places of the rules that can match a question with them."""

    def __init__(self, rules: Sequence[Sequence[Sequence[Sequence[str]]] | None]):
        """Index rules.

        Args:
            rules: of each rule its alternative phrases; of each phrase its tokens that are no gaps; of each token its
                alternatives, normalised. ``None`` for a rule that is always to be tried.
        """
        tokens = [[[_words(token) for token in phrase] for phrase in rule or ()] for rule in rules]
        common = Counter(
            word
            for rule in tokens
            for phrase in rule
            for word in set().union(*(token for token in phrase if token is not None))
        )
        self._always: set[int] = set()
        self._holders: dict[str, set[int]] = {}
        for place, phrases in enumerate(tokens):
            anchors = [_rarest(phrase, common) for phrase in phrases]
            if rules[place] is None or None in anchors:
                self._always.add(place)
                continue
            for word in set().union(*(anchor for anchor in anchors if anchor is not None)):
                self._holders.setdefault(word, set()).add(place)

    def candidates(self, bare: str) -> list[int]:
        """Places of the rules to try on a question in the form that rules see, ascending."""
        found = set(self._always)
        for word in _WORD.findall(bare):
            if word in self._holders:
                found |= self._holders[word]
        return sorted(found)


def _words(token: Sequence[str]) -> _Words | None:
    """One whole word of every alternative; ``None`` if an alternative has no word that is spelled out."""
    words = set()
    for alternative in token:
        spelled = [word for part in alternative.split() if "*" not in part for word in _WORD.findall(part)]
        if not spelled:
            return None
        words.add(spelled[0])
    return frozenset(words)


def _rarest(phrase: Sequence[_Words | None], common: Mapping[str, int]) -> _Words | None:
    known = [token for token in phrase if token is not None]
    return min(known, key=lambda token: (sum(common[word] for word in token), sorted(token)), default=None)
