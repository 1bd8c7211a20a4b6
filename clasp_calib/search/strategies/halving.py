"""Successive halving over paired samples: after each rung the worse part of the candidates goes.

All candidates see the same samples in the same order. The default stays to the end whatever it scores, so that the
winner is always compared with doing nothing on the same samples. Cheap, and a bet: where candidates differ by less than
the noise of a rung, the best one may go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.search.strategies.strategy import DEFAULT, Measure, Problem, ranked


@dataclass(frozen=True)
class Halving:
    """After ``first`` samples ``1 / eta`` of the candidates goes on, for ``eta`` times as many samples, and so on."""

    first: int = 6
    """Samples before the first candidates are rejected."""
    eta: float = 2.0
    """One in ``eta`` candidates survives a rejection."""

    def search(self, problem: Problem) -> list[int]:
        """Those that reached the last rung, best first."""
        plan = rungs(problem.samples, len(problem.candidates), self.first, self.eta)
        return race(plan, len(problem.candidates), problem.measure, DEFAULT, problem.reject)

    def most(self, candidates: int, samples: int) -> int:
        """The cost of its plan, which is fixed beforehand."""
        return cost(rungs(samples, candidates, self.first, self.eta), candidates)


@dataclass(frozen=True)
class Rung:
    """After ``samples`` samples, keep ``keep`` candidates (and the default)."""

    samples: int
    keep: int


def rungs(samples: int, candidates: int, first: int, eta: float) -> list[Rung]:
    """The plan of a race: ``first`` samples for all, then ``eta`` times more samples for ``1 / eta`` of them.

    Args:
        samples: how many there are.
        candidates: how many start.
        first: samples of the first rung.
        eta: halving factor, above 1.
    """
    plan = []
    alive, seen = float(candidates), first
    while seen < samples and alive > 1:
        alive = max(1.0, alive / eta)
        plan.append(Rung(seen, max(1, round(alive))))
        seen = max(seen + 1, round(seen * eta))
    return [*plan, Rung(samples, 1)]


def cost(plan: Sequence[Rung], candidates: int) -> int:
    """The most evaluations that a race of this plan takes (one candidate on one sample each)."""
    total, seen, alive = 0, 0, candidates
    for rung in plan:
        total += (rung.samples - seen) * alive
        seen, alive = rung.samples, min(alive, rung.keep + 1)
    return total


def race(
    plan: Sequence[Rung],
    candidates: int,
    measure: Measure,
    default: int = 0,
    on_reject: Callable[[Sequence[int]], None] = lambda candidates: None,
) -> list[int]:
    """Run a race.

    Args:
        plan: as `rungs` gives it.
        candidates: how many; they are numbered from 0, and of equal ones the lower number is kept.
        measure: scores live candidates on samples.
        default: the candidate that is never rejected.
        on_reject: told of rejected candidates.

    Returns:
        Those that reached the last rung, best first.
    """
    totals = np.zeros(candidates)
    alive, seen = list(range(candidates)), 0
    for rung in plan:
        totals[alive] += measure(range(seen, rung.samples), alive).score.sum(0)
        seen = rung.samples
        best = ranked(alive, totals[None, alive])
        if rung is plan[-1]:
            return best
        kept = {*best[: rung.keep], default}
        if rejected := [candidate for candidate in alive if candidate not in kept]:
            on_reject(rejected)
        alive = sorted(kept)
    raise AssertionError("a plan has at least one rung")
