"""All classes at once: rounds of equal cost, after each of which the worse part of every class's candidates goes.

What one class shows counts for all others, so a few evaluations of each show which candidates are not worth more. A
round measures blocks of candidates, those on which least was spent first. A sample that was begun is preferred to a new
one: what it adds to all candidates is unknown, so that its first evaluation says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.settings import check_number
from clasp_calib.search.strategies.strategy import DEFAULT, Ask, Problem, Strategy

BLOCK = 8
"""Candidates that are added to a sample at a time. Our choice."""
ROUND = 0.0375
"""Share of the exhaustive evaluations that a round takes at most, where there is more than that to spend."""
ROUNDS = 4
"""At least. Our choice: more looks gain nothing at a given cost."""
LAST = 16
"""The candidates fall to one in so many until the last round."""
DEFAULT_SPEND = 0.15
DRAWS = 1000
"""From the posterior of each class, for what a choice is expected to lose."""


@dataclass(frozen=True)
class Pooled(Strategy):
    """Spends a share of what measuring everything would take, or as much as it needs.

    Raises:
        InputError: a share out of (0, 1], or no positive number of points.
    """

    spend: float | None = None
    """Share of the exhaustive evaluations of each class, in (0, 1]; by default 0.15, and all of them with ``until``."""
    until: float | None = None
    """Points: hundredths of the score, and of a nat under ``nll`` and ``kl``. After a round the search ends if the
    choices are expected to be so little below the best candidates, on average over the classes."""

    def __post_init__(self) -> None:
        if self.spend is not None:
            share = "a share above 0 and up to 1, such as 0.15 (--spend 15%)"
            check_number("spend", self.spend, lambda spend: 0 < spend <= 1, share)
        if self.until is not None:
            check_number("until", self.until, lambda until: until > 0, "a positive number of points, such as 0.5")
        if self.spend is None:
            object.__setattr__(self, "spend", DEFAULT_SPEND if self.until is None else 1.0)

    def search(self, problem: Problem) -> None:
        """Round by round."""
        blocks = {
            label: _Blocks(samples, problem.costs or [1] * len(problem.candidates), (problem.seed, number))
            for number, (label, samples) in enumerate(problem.samples.items())
        }
        rounds = self.rounds
        for round_ in range(1, rounds + 1):
            asks: list[Ask] = []
            for label, of in blocks.items():
                # Nobody goes unseen, however few samples there are.
                wanted = of.plan(max(of.once, self.most(*of.shape) * round_ // rounds))
                asks += [Ask(label, [sample], candidates) for sample, candidates in wanted.items()]
            if asks:
                problem.measure(asks)
            if round_ == rounds or (asks and self._is_enough(problem)):
                break
            means = problem.belief().mean
            for number, (label, of) in enumerate(blocks.items()):
                keep = max(2, round(len(problem.candidates) / LAST ** (round_ / rounds)))
                if rejected := of.keep(means[number], keep):
                    problem.reject(label, rejected)

    @property
    def rounds(self) -> int:
        """How many there are."""
        assert self.spend is not None
        return max(ROUNDS, round(self.spend / ROUND)) if self.until is not None else ROUNDS

    def most(self, candidates: int, samples: int) -> int:
        """Its share, but enough to see each candidate once, as far as there are samples."""
        assert self.spend is not None
        everything = candidates * samples
        return min(everything, max(candidates, int(self.spend * everything + 1e-9)))

    def _is_enough(self, problem: Problem) -> bool:
        if self.until is None:
            return False
        belief, regrets = problem.belief(), []
        for number in range(len(problem.samples)):
            draws = belief.draws(DRAWS, number, np.random.default_rng(problem.seed))
            regrets.append(float((draws.max(1) - draws[:, belief.leader(number)]).mean()))
        return 100 * sum(regrets) / len(regrets) < self.until


class _Blocks:
    """What is asked of one class.

    Args:
        samples: of it.
        costs: of an evaluation of each candidate.
        seed: of the order in which candidates that were seen equally often are taken.
    """

    def __init__(self, samples: int, costs: Sequence[float], seed: Sequence[int]):
        self._seed, self._costs = seed, np.array(costs)
        self._asked = np.zeros((samples, len(costs)), bool)
        self._live = list(range(len(costs)))
        self._drawn = 0

    @property
    def once(self) -> float:
        """What one evaluation of each candidate costs."""
        return float(self._costs.sum())

    @property
    def shape(self) -> tuple[int, int]:
        """Candidates, samples."""
        samples, candidates = self._asked.shape
        return candidates, samples

    def plan(self, until: float) -> dict[int, list[int]]:
        """Sample -> candidates to ask of it, so that what the class costs comes to ``until``; marks them as asked."""
        planned: dict[int, list[int]] = {}
        while (left := until - float((self._asked * self._costs).sum())) > 0:
            wanted = self._least_seen()
            if not len(wanted):
                break
            missing, begun = (~self._asked[:, wanted]).sum(1), self._asked.sum(1) > 0
            sample = int(missing.argmax())
            block = self._block(sample, wanted, left)
            if not begun[sample] and len(block) < min(2, len(wanted)):
                # One candidate alone on a new sample would say nothing; one that nobody saw joins others.
                if self._asked[:, wanted[0]].any() or not begun.any():
                    break
                sample = int(np.where(begun, missing, 0).argmax())
                block = self._block(sample, wanted[:1], left)
            if not block:
                break
            self._asked[sample, block] = True
            planned.setdefault(sample, []).extend(block)
        return {sample: sorted(block) for sample, block in planned.items()}

    def _block(self, sample: int, wanted: NDArray[np.intp], left: float) -> list[int]:
        """Those of the wanted candidates that are not asked of a sample, in their order, as far as the cost allows."""
        new = [int(c) for c in wanted if not self._asked[sample, c]]
        return new[: int((self._costs[new].cumsum() <= left + 1e-9).sum())]

    def keep(self, means: NDArray[np.float64], count: int) -> list[int]:
        """Keep the best and the default; gives those that go."""
        order = sorted(self._live, key=lambda c: (-means[c], c))
        kept = {*order[:count], DEFAULT}
        rejected = [c for c in self._live if c not in kept]
        self._live = sorted(kept)
        return rejected

    def _least_seen(self) -> NDArray[np.intp]:
        """Up to `BLOCK` live candidates that are not asked of every sample, those on which least was spent first."""
        seen, spent = self._asked.sum(0), self._asked.sum(0) * self._costs
        live = np.array([c for c in self._live if seen[c] < len(self._asked)], int)
        # The default need not be known as well as those that lead, but is compared with all of them.
        counted = np.where((live == DEFAULT) & (len(live) > 2), 2 * spent[live], spent[live])
        self._drawn += 1
        ties = np.random.default_rng([*self._seed, self._drawn]).permutation(self._asked.shape[1])
        return live[np.lexsort((ties[live], counted))][:BLOCK]
