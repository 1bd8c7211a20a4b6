"""What races promise and spend, on simulated tables with known means and on recorded ones.

    python benchmarks/search.py [--part rows|ablation|recorded|peers] [--races 200] [--seed 1000] [--out PAGE]

writes docs/results/races.md unless it is given another page.

The settings of the race were chosen on seeds 0 to 199; what is reported uses seeds from 1000 on. What an evaluation
costs is measured by benchmarks/evaluation_cost.py.
"""

import argparse
import os
import platform
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from race_peers import PEERS, regrets
from race_tables import Row, Table, recorded, shuffled, simulated

from clasp_calib.search.posterior import Evidence, kernels
from clasp_calib.search.strategies import race as racing
from clasp_calib.search.strategies.race import Race, block_ends, race
from clasp_calib.search.strategies.strategy import Measure, Observations

HALF_A_POINT = 0.005
SETTINGS = Race(indifference=HALF_A_POINT)
# Rows of the table in which plain elimination and halving were first compared.
SHAPES = [
    (2000, 60, 0.02, 0.7),
    (2000, 60, 0.05, 0.7),
    (2000, 60, 0.05, 0.95),
    (1000, 60, 0.02, 0.7),
    (1000, 60, 0.05, 0.7),
    (1000, 60, 0.05, 0.95),
    (512, 60, 0.05, 0.7),
    (2000, 200, 0.05, 0.95),
]
ROWS = [Row(*shape, structured) for shape in SHAPES for structured in (True, False)]
ABLATED = [Row(2000, 60, 0.05, 0.95, True), Row(2000, 60, 0.05, 0.95, False), Row(2000, 60, 0.05, 0.7, True)]
SHARES = (0.05, 0.10, 0.15, 0.25)
CURVE = (0.01, 0.02, 0.03, 0.05, 0.075, 0.10, 0.125, 0.15, 0.20, 0.25)
NOTE = """# Races, measured

Written by `benchmarks/search.py`; do not edit. [race.md](../design/race.md) explains how a race decides. The simulated
tables involve no model. The recorded ones are of version 1 of the embedded model.

"""


@dataclass(frozen=True)
class Outcome:
    """One race: how far its winner is below the best, what was spent, what the race said of itself."""

    regret: float
    spent: float
    sure: bool
    confidence: float = float("nan")
    agreed: float = float("nan")
    exhaustive: float = float("nan")
    """Regret of the best mean when everything is measured."""
    posterior: float = float("nan")
    """Regret of the posterior's best when everything is measured."""


def measure_of(table: Table, with_nll: bool = True, agreed: list[int] | None = None) -> Measure:
    def measure(samples: range, live: Sequence[int]) -> Observations:
        part = slice(samples.start, samples.stop)
        score = table.score[part][:, list(live)]
        if agreed is not None:
            agreed.append(int((score == score[:, :1]).all(1).sum()) * len(live))
        return Observations(score, table.nll[part][:, list(live)] if with_nll else None)

    return measure


def regret(table: Table, candidate: int) -> float:
    return float(table.mean.max() - table.mean[candidate])


def covariances(table: Table, structured: bool = True) -> NDArray[np.float64]:
    """Of a table's candidates; unstructured, their scores say nothing of each other."""
    return kernels(table.score.shape[1], *((table.structure.alpha, table.structure.rho) if structured else ()))


def raced(table: Table, settings: Race = SETTINGS, with_nll: bool = True, structured: bool = True) -> Outcome:
    agreed: list[int] = []
    measure = measure_of(table, with_nll, agreed)
    result = race(len(table.score), measure, settings, covariances(table, structured))
    sure = result.confidence >= settings.confidence
    spent = result.evaluations / table.score.size
    return Outcome(regret(table, result.winner), spent, sure, result.confidence, sum(agreed) / result.evaluations)


def with_limits(table: Table) -> Outcome:
    """A race, and what is found when everything is measured: by the means alone, and by the race's own posterior."""
    evidence = Evidence(covariances(table))
    everyone = range(table.score.shape[1])
    evidence.add(table.score, table.nll, everyone)
    believed = evidence.draws(1000, everyone, np.random.default_rng(0)).mean(0)
    return replace(
        raced(table),
        exhaustive=regret(table, int(table.score.mean(0).argmax())),
        posterior=regret(table, int(believed.argmax())),
    )


def eliminated(table: Table, corrected: bool) -> Outcome:
    """Plain paired elimination: whoever is below the leader by a one-sided test at each look goes."""
    live = np.arange(table.score.shape[1])
    ends = block_ends(len(table.score), SETTINGS.first, SETTINGS.growth)
    level = 0.05 / (len(ends) * (len(live) - 1)) if corrected else 0.05
    spent, begun = 0, 0
    for end in ends:
        spent += (end - begun) * len(live)
        begun = end
        difference = table.score[:end, live]
        leader = difference.mean(0).argmax()
        difference = difference - difference[:, [leader]]
        width = NormalDist().inv_cdf(1 - level) * np.sqrt((difference.var(0) + 1 / end) / end)
        live = live[(difference.mean(0) + width >= 0) | (np.arange(len(live)) == leader)]
        if len(live) == 1:
            break
    winner = int(live[table.score[:begun, live].mean(0).argmax()])
    return Outcome(regret(table, winner), spent / table.score.size, len(live) == 1)


def patient(table: Table) -> Outcome:
    with patch.object(racing, "EAGER", 0.0):
        return raced(table)


VARIANTS: dict[str, Callable[[Table], Outcome]] = {
    "the race": raced,
    "without the indifference zone": partial(raced, settings=replace(SETTINGS, indifference=0.0)),
    "without structure": partial(raced, structured=False),
    "without the companion": partial(raced, with_nll=False),
    "without structure and companion": partial(raced, with_nll=False, structured=False),
    "rejecting by the promise alone": patient,
    "paired elimination, corrected level": partial(eliminated, corrected=True),
    "paired elimination, 5 % at every look": partial(eliminated, corrected=False),
}


def one(row: Row, seed: int, way: Callable[[Table], Outcome]) -> Outcome:
    return way(simulated(row, seed))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def interval(hits: int, of: int) -> str:
    """A share with Wilson's 95 % interval."""
    if of == 0:
        return "-"
    z = NormalDist().inv_cdf(0.975)
    centre = (hits + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * np.sqrt(hits * (of - hits) / of + z * z / 4)
    return f"{100 * hits / of:.1f} [{100 * (centre - half):.0f}, {100 * (centre + half):.0f}]"


def good(regrets: Sequence[float]) -> str:
    """Share within half a point of the best."""
    return interval(sum(r <= HALF_A_POINT for r in regrets), len(regrets))


def kept(outcomes: Sequence[Outcome]) -> str:
    return good([o.regret for o in outcomes])


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    text = "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
    print(text, flush=True)
    return text + "\n"


def shape_of(row: Row) -> list[str]:
    return [str(row.samples), str(row.candidates), f"{row.spread:g}", f"{row.correlation:g}", row.name]


def rows_section(pool: ProcessPoolExecutor, seeds: range) -> str:
    lines = []
    for row in ROWS:
        # Races among many candidates take ten times as long: an eighth of the seeds.
        of = seeds if row.candidates <= 100 else seeds[: len(seeds) // 8]
        found = list(pool.map(partial(one, row, way=with_limits), of, chunksize=5))
        sure = [o for o in found if o.sure]
        lines.append(
            [
                *shape_of(row),
                str(len(found)),
                kept(found),
                percent(float(np.mean([o.spent for o in found]))),
                percent(float(np.quantile([o.spent for o in found], 0.95))),
                percent(float(np.mean([o.confidence for o in found]))),
                str(len(sure)),
                kept(sure),
                good([o.exhaustive for o in found]),
                good([o.posterior for o in found]),
            ]
        )
        print(lines[-1], flush=True)
    columns = (
        "N | C | spread | r | means | races | within 0.5, % | spent | spent, 95th percentile | confidence stated | "
        "sure | of them within 0.5, % | all measured: best mean, % | all measured: posterior, %"
    )
    return "## Simulated tables\n\n" + ROWS_TEXT + table_of(columns.split(" | "), lines)


ROWS_TEXT = """\
`benchmarks/race_tables.py` describes how the tables are made. N is the number of samples, C that of candidates, and r
their correlation.

- *within 0.5*: share of the races whose winner's true mean is at most half a point below the best one, with a 95 %
  interval.
- *spent*: share of the evaluations that measuring everything takes.
- *sure*: races that stopped because their promise was reached. The others ran out of samples and stated a lower
  confidence.
- *all measured*: how often the winner is within half a point if all samples of all candidates are used, by the best
  mean and by the posterior of the race. Where these are below 95 %, samples are lacking, not evaluations.

"""


def ablation_section(pool: ProcessPoolExecutor, seeds: range) -> str:
    text = "## What each idea is worth\n\n" + ABLATION_TEXT.format(races=len(seeds))
    for row in ABLATED:
        lines = []
        for name, way in VARIANTS.items():
            found = list(pool.map(partial(one, row, way=way), seeds, chunksize=5))
            sure = [o for o in found if o.sure]
            lines.append(
                [name, kept(found), percent(float(np.mean([o.spent for o in found]))), str(len(sure)), kept(sure)]
            )
            if name == "the race":
                agreed = float(np.mean([o.agreed for o in found]))
        title = f"### N {row.samples}, C {row.candidates}, spread {row.spread:g}, r {row.correlation:g}, {row.name}\n\n"
        columns = ["", "within 0.5, %", "spent", "sure", "of them within 0.5, %"]
        text += title + table_of(columns, lines)
        text += f"{percent(agreed)} of the race's evaluations are on samples on which all live candidates agree.\n\n"
    return text


ABLATION_TEXT = """\
{races} races each. One idea is taken away at a time. *Rejecting by the promise alone* gives up candidates
as long as the risk stays under a fifth of the promised 5 %, and not under a share of the remaining doubt.

The number below each table is the share of evaluations on samples on which all live candidates agree. It is the most
that a race could save by skipping such samples. This is not done, because the companion still tells candidates apart on
them.

"""


def recorded_section(seeds: range) -> str:
    lines = []
    for label, table in recorded().items():
        found = [raced(shuffled(table, seed)) for seed in seeds]
        best = np.sort(table.mean)[::-1]
        lines.append(
            [
                label,
                str(len(table.score)),
                f"{100 * table.mean[0]:.1f}",
                f"{100 * best[0]:.1f}",
                str(int((best[0] - table.mean <= HALF_A_POINT).sum())),
                kept(found),
                percent(float(np.mean([o.spent for o in found]))),
                str(sum(o.sure for o in found)),
                f"{100 * np.mean([o.regret for o in found]):.2f}",
            ]
        )
    columns = "class | N | default | best | within 0.5 of it | races within 0.5, % | spent | sure | mean regret, points"
    return "## Recorded tables\n\n" + RECORDED_TEXT + table_of(columns.split(" | "), lines)


RECORDED_TEXT = """\
`benchmarks/record_scores.py` measured every candidate on every sample, on version 1 of the embedded model at 64 tokens.
Each race shuffles the samples again. Winners are judged by the means of the table, which a race knows only once it has
measured everything. With so few samples half a point is less than one answer.

"""


def race_path(table: Table, most: int, seed: int, indifference: float) -> list[tuple[int, int]]:
    settings = replace(SETTINGS, indifference=indifference)
    result = race(len(table.score), measure_of(table), settings, covariances(table))
    return [(standing.evaluations, standing.leader) for standing in result.standings]


SEARCHES = {
    "the race": partial(race_path, indifference=HALF_A_POINT),
    "the race, indifference 0.1": partial(race_path, indifference=HALF_A_POINT / 5),
    **PEERS,
}


def regret_at(row: Row, seed: int, name: str) -> list[float]:
    table = simulated(row, seed)
    most = int(CURVE[-1] * table.score.size)
    return list(regrets(SEARCHES[name](table, most, seed), table, [int(share * table.score.size) for share in CURVE]))


def peers_section(pool: ProcessPoolExecutor, seeds: range, picture: Path) -> str:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    text = "## Beside Optuna's own\n\n" + PEERS_TEXT.format(races=len(seeds), picture=picture.name)
    figure, axes = plt.subplots(1, len(ABLATED[:2]), figsize=(9, 3.2), sharey=True, layout="constrained")
    for row, axis in zip(ABLATED[:2], axes, strict=True):
        lines = []
        for name in SEARCHES:
            found = np.array(list(pool.map(partial(regret_at, row, name=name), seeds)))
            mean, error = found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))
            cells = [
                f"{100 * mean[CURVE.index(share)]:.2f} ± {196 * error[CURVE.index(share)]:.2f}" for share in SHARES
            ]
            lines.append([name, *cells])
            print(lines[-1], flush=True)
            axis.plot([100 * share for share in CURVE], 100 * mean, marker=".", label=name)
            axis.fill_between(
                [100 * s for s in CURVE], 100 * (mean - 1.96 * error), 100 * (mean + 1.96 * error), alpha=0.2
            )
        axis.set(title=row.name, xlabel="evaluations, % of all", ylabel="regret, points", ylim=(0, 3))
        text += f"### {row.name.capitalize()}\n\n"
        text += table_of(["regret, points, at", *(f"{100 * share:g} %" for share in SHARES)], lines)
    axes[0].legend(fontsize=7)
    figure.savefig(picture, dpi=90)
    return text


PEERS_TEXT = """\
Regret is how far the candidate that a search would return is below the best one, in points of score. The
columns are the share of the evaluations that were made. The tables have N 2000, C 60, spread 0.05 and r 0.95; numbers
are means over {races} tables with 95 % intervals. A race stops when it is sure of half a point, and its regret then
stays the same. A second race must be sure of a tenth of a point.

![Regret against evaluations]({picture})

"""


PARTS: dict[str, Callable[..., str]] = {
    "rows": lambda pool, arguments: rows_section(pool, range(arguments.seed, arguments.seed + arguments.races)),
    "ablation": lambda pool, arguments: ablation_section(pool, range(arguments.seed, arguments.seed + arguments.races)),
    "recorded": lambda pool, arguments: recorded_section(range(arguments.seed, arguments.seed + arguments.races)),
    "peers": lambda pool, arguments: peers_section(
        pool, range(arguments.seed, arguments.seed + arguments.races), arguments.out.with_suffix(".png")
    ),
}


def write(out: Path, name: str, section: str) -> None:
    """Put one part's section in its place on the page, and leave the others."""
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    found = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->\n", text, re.DOTALL))
    found[name] = section
    parts = "\n".join(f"<!-- {part} -->\n{found[part]}<!-- end -->\n" for part in PARTS if part in found)
    out.write_text(NOTE + parts, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all")
    parser.add_argument("--races", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=1000, help="of the first race")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "results" / "races.md")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(arguments.workers) as pool:
        for name in arguments.part or PARTS:
            section = PARTS[name](pool, arguments)
            seeds = f"Seeds {arguments.seed} to {arguments.seed + arguments.races - 1}; numpy {np.__version__}, "
            write(arguments.out, name, section.rstrip() + f"\n\n{seeds}{platform.machine()}.\n")


if __name__ == "__main__":
    main()
