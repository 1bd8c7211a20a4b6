"""A race: candidates measured on the same samples, block by block, dropped when the evidence is against them.

Shapes: C candidates, n samples of a block, m live candidates.

The promise: with probability ``confidence`` the winner's true mean score is at most ``indifference`` below the best
candidate's. A race is a function of the scores alone: the same scores give the same race, bit for bit, so that a
search that was killed is resumed by racing again over what was recorded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observations:
    """What one block of samples says of the live candidates.

    ``score`` is [n, m] in [0, 1], the metric; ``nll`` is [n, m], the answer's negative log-likelihood in nats, or
    ``None`` where it is not known.
    """

    score: Floats
    nll: Floats | None = None


class Measure(Protocol):
    """Measures the candidates ``live`` on the samples ``samples`` (indices in the race's one order)."""

    def __call__(self, samples: range, live: Sequence[int]) -> Observations:
        """Observations of shape [len(samples), len(live)]."""
        ...


@dataclass(frozen=True)
class Structure:
    """What is known of the candidates before any is measured: ``alpha`` [C, L] over layers and ``rho`` [C]."""

    alpha: Floats
    rho: Floats


@dataclass(frozen=True)
class RaceSettings:
    """What a race promises, and where it looks.

    ``indifference`` is in units of the score (0.005 is half a point); blocks end after ``first`` samples and then
    after ``growth`` times as many.
    """

    indifference: float = 0.005
    confidence: float = 0.95
    first: int = 32
    growth: float = 1.4


@dataclass(frozen=True)
class Standing:
    """Where a race stands behind a block."""

    samples: int
    """That the live candidates have seen."""
    live: tuple[int, ...]
    """Who goes on, in ascending order."""
    rejected: tuple[int, ...]
    """Who was rejected behind this block."""
    leader: int
    confidence: float
    """That the leader is within ``indifference`` of the best."""


@dataclass(frozen=True)
class RaceResult:
    """How a race ended."""

    winner: int
    ranked: tuple[int, ...]
    """Who was live at the end, best first."""
    confidence: float
    """That the winner is within ``indifference`` of the best; under the one asked for when the samples ran out."""
    seen: tuple[int, ...]
    """[C] samples that each candidate was measured on."""
    standings: tuple[Standing, ...]

    @property
    def evaluations(self) -> int:
        """Candidate-sample pairs that were measured."""
        return sum(self.seen)


def block_ends(samples: int, first: int, growth: float) -> list[int]:
    """After how many samples a race looks at its evidence: ``first``, then ``growth`` times as many, the last all."""
    ends = []
    end = first
    while end < samples:
        ends.append(end)
        end = max(end + 1, round(end * growth))
    return [*ends, samples]


def race(
    samples: int,
    candidates: int,
    measure: Measure,
    settings: RaceSettings,
    structure: Structure | None = None,
    default: int = 0,
    on_block: Callable[[Standing], None] = lambda standing: None,
) -> RaceResult:
    """Run a race.

    Args:
        samples: how many there are at most, at least 1; their order was shuffled once, before.
        candidates: C; numbered from 0, and of equal ones the lower number is preferred.
        measure: asked for each block once, in order, with ascending live candidates.
        settings: what to promise.
        structure: of the candidates.
        default: the candidate that is never rejected.
        on_block: told where the race stands behind each block.
    """
    live = list(range(candidates))
    seen = [0] * candidates
    score = np.empty((0, candidates))
    standings: list[Standing] = []
    ends = block_ends(samples, settings.first, settings.growth)
    # Bonferroni over looks and rivals: whatever is concluded at any look is wrong with at most 1 - confidence.
    level = (1 - settings.confidence) / (len(ends) * max(1, candidates - 1))
    begun = 0
    for end in ends:
        block = measure(range(begun, end), live)
        score = np.vstack([score[:, live] if len(score) else np.empty((0, len(live))), block.score])
        for candidate in live:
            seen[candidate] = end
        begun = end
        order = sorted(range(len(live)), key=lambda c: (-score[:, c].mean(), c))
        leader = order[0]
        most = _highest_lead(score, leader, level)
        rejected = [c for c, high in enumerate(most) if high < 0 and live[c] != default and c != leader]
        sure = bool(np.all(most <= settings.indifference))
        ranked = [live[c] for c in order if c not in rejected]
        keep = [c for c in range(len(live)) if c not in rejected]
        standing = Standing(
            end,
            tuple(live[c] for c in keep),
            tuple(live[c] for c in rejected),
            live[leader],
            settings.confidence if sure else 0.0,
        )
        on_block(standing)
        standings.append(standing)
        full = np.full((len(score), candidates), np.nan)
        full[:, [live[c] for c in keep]] = score[:, keep]
        score = full
        live = list(standing.live)
        if sure:
            break
    return RaceResult(ranked[0], tuple(ranked), standings[-1].confidence, tuple(seen), tuple(standings))


def _highest_lead(score: Floats, leader: int, level: float) -> Floats:
    """[m] upper bound, at a one-sided level, of how much each candidate's true mean is above the leader's."""
    difference = score - score[:, [leader]]
    n = len(difference)
    mean = difference.mean(0)
    # One made-up disagreement, so that a few samples without any do not count as certainty.
    variance = (((difference - mean) ** 2).sum(0) + 1) / n
    bound: Floats = mean + NormalDist().inv_cdf(1 - level) * np.sqrt(variance / n)
    bound[leader] = 0.0
    return bound
