"""What candidates scored on a sample."""

from collections.abc import Sequence
from dataclasses import dataclass

SCORING = 3
"""Raised when the same candidate scores otherwise than before, so that old journals are not taken up."""


@dataclass(frozen=True)
class Scores:
    """One value for each candidate, in their order.

    ``score`` is what is maximised. ``nll`` is its companion where the same forward gives it, ``None`` elsewhere: the
    negative log-likelihood in nats of the accepted answer that a candidate finds most likely, summed over its tokens,
    the end of sequence included. It varies less from sample to sample than a score that is right or wrong.
    """

    score: tuple[float, ...]
    nll: tuple[float, ...] | None = None

    def of(self, places: Sequence[int]) -> "Scores":
        """The same of candidates in another order: first that of the place 0 in ``places``, and so on."""
        order = sorted(range(len(places)), key=places.__getitem__)
        nll = None if self.nll is None else tuple(self.nll[place] for place in order)
        return Scores(tuple(self.score[place] for place in order), nll)

    @staticmethod
    def joined(parts: Sequence["Scores"]) -> "Scores":
        """Those of several groups of candidates, one after the other."""
        nll = [part.nll for part in parts if part.nll is not None]
        return Scores(
            tuple(score for part in parts for score in part.score),
            tuple(value for values in nll for value in values) if len(nll) == len(parts) else None,
        )
