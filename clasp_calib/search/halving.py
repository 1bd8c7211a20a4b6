"""Early rejection: successive halving over paired samples, with the default never rejected.

All candidates see the same samples in the same order. After each rung the worse part goes. The default stays to the
end whatever it scores, so that the winner is always compared with doing nothing on the same samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Scores = dict[int, list[float]]
"""Candidate index -> its scores on the samples so far."""
Measure = Callable[[int, Sequence[int]], Sequence[float]]
"""Of a sample's index and live candidates: the score of each."""


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
    on_reject: Callable[[int], None] = lambda candidate: None,
) -> tuple[list[int], Scores]:
    """Run a race.

    Args:
        plan: as `rungs` gives it.
        candidates: how many; they are numbered from 0, and of equal ones the lower number is kept.
        measure: scores live candidates on one sample.
        default: the candidate that is never rejected.
        on_reject: told of each rejected candidate.

    Returns:
        Those that reached the last rung, best first, and all scores.
    """
    scores: Scores = {c: [] for c in range(candidates)}
    alive, seen = list(range(candidates)), 0
    for rung in plan:
        for sample in range(seen, rung.samples):
            for candidate, score in zip(alive, measure(sample, alive), strict=True):
                scores[candidate].append(score)
        seen = rung.samples
        ranked = sorted(alive, key=lambda c: (-sum(scores[c]), c))
        if rung is plan[-1]:
            return ranked, scores
        kept = {*ranked[: rung.keep], default}
        for candidate in alive:
            if candidate not in kept:
                on_reject(candidate)
        alive = sorted(kept)
    raise AssertionError("a plan has at least one rung")
