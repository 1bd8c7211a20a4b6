"""The product's strategies, asking tables of scores instead of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.search.belief import Belief, believe
from clasp_calib.search.strategies.strategy import Ask, Observations, Problem, Strategy
from clasp_calib.search.verdict import Verdict, decide

from .tables import Draw, covariances


@dataclass(frozen=True)
class Outcome:
    """What a search came to: what it says of each class, the share of all evaluations that it took, and its belief."""

    verdicts: list[Verdict]
    spent: float
    belief: Belief

    @property
    def choice(self) -> list[int]:
        return [verdict.candidate for verdict in self.verdicts]


class Replay:
    """Answers what a strategy asks, and knows what was asked."""

    def __init__(self, draw: Draw):
        self.draw, self._signals = draw, draw.signals
        self.asked = [np.zeros(score.shape, bool) for score in draw.score]
        self._place = {label: k for k, label in enumerate(draw.labels)}

    def measure(self, asks: Sequence[Ask], /) -> list[Observations]:
        found = []
        for ask in asks:
            k, cells = self._place[ask.label], np.ix_(list(ask.samples), list(ask.live))
            self.asked[k][cells] = True
            found.append(Observations(self.draw.score[k][cells], self.draw.nll[k][cells]))
        return found

    @property
    def tables(self) -> list[np.ndarray]:
        return [np.where(asked, table, np.nan) for asked, table in zip(self.asked, self._signals, strict=True)]

    def belief(self) -> Belief:
        return believe(self.tables, covariances(self.draw.candidates))


def replayed(strategy: Strategy, draw: Draw, seed: int = 0) -> Outcome:
    """Run a strategy to its end, and decide as the search does."""
    replay = Replay(draw)
    sizes = {label: len(score) for label, score in zip(draw.labels, draw.score, strict=True)}
    strategy.search(Problem(draw.candidates, sizes, replay.measure, replay.belief, seed=seed))
    spent = sum(asked.sum() for asked in replay.asked) / sum(asked.size for asked in replay.asked)
    belief = replay.belief()
    return Outcome(decide(belief, replay.tables), float(spent), belief)
