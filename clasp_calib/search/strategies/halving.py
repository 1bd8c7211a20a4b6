"""Successive halving over paired samples: after each rung the worse part of the candidates goes.

All candidates see the same samples in the same order. The default stays to the end whatever it scores, so that the
rest is always compared with doing nothing on the same samples. Cheap, and a bet: where candidates differ by less than
the noise of a rung, the best one may go.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from clasp_calib.common.settings import check_count, check_number
from clasp_calib.search.strategies.class_by_class import ClassByClass, OneClass, Questions
from clasp_calib.search.strategies.strategy import DEFAULT, ranked


@dataclass(frozen=True)
class Halving(ClassByClass):
    """After ``first`` samples ``1 / eta`` of the candidates goes on, for ``eta`` times as many samples, and so on."""

    first: int = 6
    """Samples before the first candidates are rejected."""
    eta: float = 2.0
    """One in ``eta`` candidates survives a rejection."""

    def __post_init__(self) -> None:
        """Refuse what candidates cannot be halved by.

        Raises:
            InputError: a number that is none, or out of range.
        """
        check_count("first", self.first, 1)
        check_number("eta", self.eta, lambda eta: 1 < eta < inf, "a number above 1, such as 2")

    def course(self, one: OneClass) -> Questions:
        """Rung by rung."""
        alive, seen = list(range(len(one.candidates))), 0
        totals = np.zeros(len(alive))
        *rungs, (last, _) = self.plan(len(alive), one.samples)
        for samples, keep in rungs:
            answer = yield range(seen, samples), alive
            totals[alive] += answer.score.sum(0)
            kept = {*ranked(alive, totals[None, alive])[:keep], DEFAULT}
            if rejected := [candidate for candidate in alive if candidate not in kept]:
                one.reject(rejected)
            alive, seen = sorted(kept), samples
        yield range(seen, last), alive

    def most(self, candidates: int, samples: int) -> int:
        """The cost of its plan, which is fixed beforehand."""
        total, seen, alive = 0, 0, candidates
        for end, keep in self.plan(candidates, samples):
            total += (end - seen) * alive
            seen, alive = end, min(alive, keep + 1)
        return total

    def plan(self, candidates: int, samples: int) -> list[tuple[int, int]]:
        """The rungs: after so many samples, keep so many candidates (and the default)."""
        rungs, alive, seen = [], float(candidates), self.first
        while seen < samples and alive > 1:
            alive = max(1.0, alive / self.eta)
            rungs.append((seen, max(1, round(alive))))
            seen = max(seen + 1, round(seen * self.eta))
        return [*rungs, (samples, 1)]
