"""A race: candidates measured on the same samples, block by block, dropped when the evidence is against them.

Shapes: C candidates, n samples of a block, m live candidates, D draws from the posterior.

The promise: with probability ``confidence`` the winner's true mean score is at most ``indifference`` below the best
candidate's. After each block the race asks the posterior (`clasp_calib.search.belief`) how probable that is for the
leader, the rejected candidates included, and stops when it is probable enough. A posterior is as good after many looks
as after one, so that the number of looks needs no correction; what could be wrong is the prior, and the promise is
therefore tested on races whose means are known.

A race is a function of the scores alone: the same scores give the same race, so that a search that was killed is
resumed by racing again over what was recorded.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.settings import check_count, check_number
from clasp_calib.search.belief import believe, kernels, signal
from clasp_calib.search.noise import Floats
from clasp_calib.search.strategies.class_by_class import ClassByClass, OneClass, Question, Questions
from clasp_calib.search.strategies.strategy import DEFAULT, Observations

DRAWS = 1000
"""From the posterior, at each look: a probability of 5 % is then known to 0.7 %."""
SPENT, EAGER = 0.2, 0.1
"""Candidates are rejected while the probability that any of them is worth having is at most ``SPENT`` of what may go
wrong in all, or ``EAGER`` of what is now in doubt. Our choice, tuned on simulated races."""


@dataclass(frozen=True)
class Race(ClassByClass):
    """Drops candidates by paired evidence, and stops when the leader is surely good enough."""

    indifference: float = 0.005
    """In units of the score: 0.005 is half a point. The leader may be this far below the best candidate."""
    confidence: float = 0.95
    """Probability of that at which the race stops."""
    first: int = 40
    """Samples of the first block, or a fifth of all if that is less."""
    growth: float = 1.5
    """How many times as many samples there are behind each further block."""

    def __post_init__(self) -> None:
        """Refuse what no race can be run with.

        Raises:
            InputError: a number that is none, or out of range.
        """
        check_number("indifference", self.indifference, lambda gap: gap >= 0, "a difference of scores, such as 0.005")
        check_number("confidence", self.confidence, lambda share: 0 < share < 1, "a probability, such as 0.95")
        check_count("first", self.first, 1)
        check_number("growth", self.growth, lambda times: times >= 1, "at least 1, such as 1.5")

    def course(self, one: OneClass) -> Questions:
        """Block by block."""
        likeness = kernels(one.candidates)
        yield from race(one.samples, self, likeness, lambda block: one.reject(block.rejected))


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
    evaluations: int
    """Candidate-sample pairs that were measured so far."""
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
    settings: Race,
    likeness: Floats,
    on_block: Callable[[Standing], None] = lambda standing: None,
) -> Generator[Question, Observations, RaceResult]:
    """Run a race: yields each block once, in order, with ascending live candidates, and is sent what they scored.

    Args:
        samples: how many there are at most, at least 1; their order was shuffled once, before.
        settings: what to promise.
        likeness: [P, C, C] of candidates, as `clasp_calib.search.belief.kernels` gives it. Of equal candidates the
            lower number is preferred, and number 0, the default, is never rejected.
        on_block: told where the race stands behind each block.
    """
    candidates = likeness.shape[1]
    judged = np.full((samples, candidates), np.nan)
    generator = np.random.default_rng(0)
    live = doubted = list(range(candidates))
    seen = [0] * candidates
    standings: list[Standing] = []
    begun = 0
    for end in block_ends(samples, min(settings.first, max(1, samples // 5)), settings.growth):
        block = yield range(begun, end), live
        judged[begun:end, live] = signal(block.score, block.nll)
        begun = end
        for candidate in live:
            seen[candidate] = end
        belief = believe([judged[:end]], likeness)
        draws = belief.draws(DRAWS, 0, generator)[:, doubted]
        place = {candidate: number for number, candidate in enumerate(doubted)}
        ranked = sorted(live, key=lambda c: (-belief.mean[0, c], c))
        leader = ranked[0]
        ahead = draws - draws[:, [place[leader]]] > settings.indifference
        in_doubt = float(ahead.any(1).mean())
        allowed = max(SPENT * (1 - settings.confidence), EAGER * in_doubt)
        rejected = _rejected(ahead, [place[c] for c in live if c not in (DEFAULT, leader)], allowed)
        rejected = [doubted[number] for number in rejected]
        standings.append(
            Standing(
                end,
                tuple(c for c in live if c not in rejected),
                tuple(rejected),
                leader,
                sum(seen),
                1 - in_doubt,
            )
        )
        on_block(standings[-1])
        live = list(standings[-1].live)
        # Whom no draw puts ahead any more is out of the count for good.
        doubted = [c for c in doubted if c in live or ahead[:, place[c]].any()]
        if in_doubt <= 1 - settings.confidence:
            break
    return RaceResult(
        leader, tuple(c for c in ranked if c in live), standings[-1].confidence, tuple(seen), tuple(standings)
    )


def _rejected(ahead: NDArray[np.bool_], those: Sequence[int], allowed: float) -> list[int]:
    """Columns of ``ahead`` [D, ...] to give up: most hopeless first, while any of them is ahead in few draws only."""
    given_up: list[int] = []
    lost = np.zeros(len(ahead), bool)
    for column in sorted(those, key=lambda c: (ahead[:, c].sum(), c)):
        lost = lost | ahead[:, column]
        if lost.mean() > allowed:
            break
        given_up.append(column)
    return sorted(given_up)
