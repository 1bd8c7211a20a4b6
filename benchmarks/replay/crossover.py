"""Part `crossover`: where the race is cheaper than pooled rounds, on simulated tables with known means."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np

from clasp_calib.search.strategies.pooled import Pooled
from clasp_calib.search.strategies.race import Race
from clasp_calib.search.strategies.strategy import Strategy

from .replayed import replayed
from .simulated import KINDS, Row, simulated
from .statistics import half_width, markdown, percent

SAMPLES = (125, 500, 2000, 4000)
UNTIL = 0.5
TEXT = """\
Nine classes of N samples and 24 candidates, simulated so that their true means are known
(`benchmarks/replay/simulated.py`). *regret*: how far choices are below the best candidates, in points, with 95 %
intervals over {draws} tables. The race stops when it is sure; pooled rounds were then given exactly as many evaluations
as the race took, and once told to stop by themselves (`--until {until:g}`).

"""


def compared(row: Row, seed: int) -> Mapping[str, tuple[float, float]]:
    """Share spent and mean regret of each way to search."""
    draw = simulated(row, seed)
    best = draw.truth.max(1)

    def of(strategy: Strategy) -> tuple[float, float]:
        outcome = replayed(strategy, draw, seed)
        return outcome.spent, float((best - draw.worth(outcome.choice)).mean())

    race = of(Race())
    return {
        "race": race,
        "pooled, as much": of(Pooled(spend=min(1.0, race[0]))),
        "pooled, 15 %": of(Pooled(spend=0.15)),
        "pooled, until": of(Pooled(spend=None, until=UNTIL)),
        "all": (1.0, float((best - draw.worth([draw.belief.leader(k) for k in range(len(best))])).mean())),
    }


def section(pool: Executor, draws: range) -> str:
    text = "## Pooled rounds or a race\n\n" + TEXT.format(draws=len(draws), until=UNTIL)
    for name, row in KINDS.items():
        rows = []
        for samples in SAMPLES:
            found = list(pool.map(partial(compared, replace(row, samples=samples)), draws))
            ways = {way: np.array([of[way] for of in found]) for way in found[0]}
            cells = [
                f"{percent(v[:, 0].mean())}: {100 * v[:, 1].mean():.2f} ± {100 * half_width(v[:, 1]):.2f}"
                for v in ways.values()
            ]
            rows.append([str(samples), *cells])
            print(rows[-1], flush=True)
        columns = ["N", "race", "pooled, as much", "pooled, 15 %", f"pooled until {UNTIL:g}", "all, one posterior"]
        text += f"### {name.capitalize()}\n\nShare spent: regret.\n\n" + markdown(columns, rows)
    return text
