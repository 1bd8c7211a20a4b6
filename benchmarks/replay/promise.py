"""Part `race`: whether a race keeps its promise, on simulated tables of one class with known means."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from clasp_calib.search.belief import Belief
from clasp_calib.search.strategies.race import Race

from .replayed import replayed
from .rules import best, means_of
from .simulated import Row, simulated
from .statistics import markdown, percent, wilson

SURE, DRAWS = 0.95, 1000
HALF_A_POINT = 0.005
ROWS = [
    Row(2000, 60, 0.02, 0.7),
    Row(2000, 60, 0.05, 0.7),
    Row(2000, 60, 0.05, 0.95),
    Row(2000, 60, 0.05, 0.95, structured=False),
    Row(512, 60, 0.05, 0.7),
]
TEXT = """\
A race ends when it is sure, with a probability of 95 %, that its choice is within half a point of the best candidate,
or when the samples run out. {races} races a row, each of one class, simulated so that the true means are known
(`benchmarks/replay/simulated.py`). N is the number of samples, C that of candidates, r their correlation.

- *within 0.5*: share of the races whose choice is at most half a point below the best candidate, with a 95 % interval.
- *stated*: the probability of that which the races state at their end.
- *sure*: races that state 95 % or more.
- *all measured*: how often choices are within half a point when everything is measured. Where this is below 95 %,
  samples are lacking, not evaluations.

"""


@dataclass(frozen=True)
class Raced:
    """Of one race: regrets of its choice and of those when everything is measured, and what it says and took."""

    regret: float
    stated: float
    spent: float
    best_mean: float
    posterior: float


def stated(belief: Belief, choice: int) -> float:
    """The probability that a choice is within half a point of the best."""
    draws = belief.draws(DRAWS, 0, np.random.default_rng(0))
    return float((draws.max(1) - draws[:, choice] <= HALF_A_POINT).mean())


def raced(row: Row, seed: int) -> Raced:
    draw = simulated(row, seed)
    outcome, truth = replayed(Race(), draw, seed), draw.truth[0]
    everything = draw.belief.leader(0), best(means_of(draw.score))[0]
    regret, posterior, plain = (float(truth.max() - truth[c]) for c in (outcome.choice[0], *everything))
    return Raced(regret, stated(outcome.belief, outcome.choice[0]), outcome.spent, plain, posterior)


def section(pool: Executor, draws: range) -> str:
    rows = []
    for row in ROWS:
        found = list(pool.map(partial(raced, row), draws))
        sure = [one for one in found if one.stated >= SURE]
        spent = [one.spent for one in found]
        rows.append(
            [
                str(row.samples),
                str(row.candidates),
                f"{row.spread:g}",
                f"{row.correlation:g}",
                "structured" if row.structured else "unstructured",
                good([one.regret for one in found]),
                percent(float(np.mean([one.stated for one in found]))),
                percent(float(np.mean(spent))),
                percent(float(np.quantile(spent, 0.95))),
                str(len(sure)),
                good([one.regret for one in sure]),
                good([one.best_mean for one in found]),
                good([one.posterior for one in found]),
            ]
        )
        print(rows[-1], flush=True)
    columns = (
        "N | C | spread | r | means | within 0.5, % | stated | spent | spent, 95th percentile | sure | "
        "of them within 0.5, % | all measured: best mean, % | all measured: posterior, %"
    )
    return "## Does a race keep its promise?\n\n" + TEXT.format(races=len(draws)) + markdown(columns.split(" | "), rows)


def good(regrets: list[float]) -> str:
    """Share within half a point of the best."""
    return wilson(sum(regret <= HALF_A_POINT for regret in regrets), len(regrets))
