"""Part `sureness`: whether what a choice says of its own risk is so."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from clasp_calib.search.strategies.pooled import Pooled
from clasp_calib.search.verdict import Verdict, decide

from .cases import CASES, drawn_case
from .replayed import replayed
from .simulated import KINDS, simulated
from .statistics import clustered, markdown, percent
from .tables import Draw, budgets_of, fitting

SIZES, SIMULATED = (8, 32, 128), (16, 64, 256)
UNTIL, STOPPED = 0.5, 2
"""Points; and draws of each hard table that are replayed until they stop."""
EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 1.0)
POINT = 0.01
TEXT = """\
A choice states the probability that it is worse than the default, and worse by more than a point. Here its statements
are sorted by what they say, beside how often it was so on the samples that were not drawn. A difference of exactly
nothing counts half. Choices of the default are left out. Intervals (95 %) are over the (class, budget) pairs, since
all draws from one share their samples. Where the truth is close to nothing, the noise of the judging samples moves
*found* towards a half. {draws} draws at each of n = {sizes} and each budget.

Among hard tables are some on which every move away from the default is a loss by construction; there only the number of
choices that claim to be safe can be small.

"""


@dataclass(frozen=True)
class Claim:
    """What one choice says of itself, and what was found."""

    worse: float
    much_worse: float
    gain: float
    cluster: str


def claims_of(draw: Draw, verdicts: Sequence[Verdict], classes: Sequence[int], where: str) -> list[Claim]:
    gains = draw.worth([verdict.candidate for verdict in verdicts]) - draw.truth[:, 0]
    return [
        Claim(verdicts[k].worse, verdicts[k].much_worse, float(gains[k]), f"{where} {draw.labels[k]}")
        for k in classes
        if verdicts[k].candidate
    ]


def claimed(name: str, budget: str, n: int, path: Path, seed: int) -> list[Claim]:
    """What is said when everything was measured."""
    draw, classes = drawn_case(name, budget, n, path, seed)
    return claims_of(draw, decide(draw.belief, draw.signals), classes, budget)


def stopped(name: str, budget: str, n: int, path: Path, seed: int) -> tuple[list[Claim], float]:
    """What is said when the search stopped by itself, and the share that it took."""
    draw, classes = drawn_case(name, budget, n, path, seed)
    outcome = replayed(Pooled(until=UNTIL), draw, seed)
    return claims_of(draw, outcome.verdicts, classes, budget), outcome.spent


def known(kind: str, samples: int, seed: int) -> list[Claim]:
    """What is said of simulated tables, whose truth is known exactly."""
    draw = simulated(replace(KINDS[kind], samples=samples), seed)
    # Every table is a world of its own.
    return claims_of(draw, decide(draw.belief, draw.signals), range(len(draw.labels)), f"{kind} {seed}")


def reliability(claims: Sequence[Claim], much: bool) -> list[list[str]]:
    """Rows: what was said, how often, and what was found."""
    rows = []
    bins = [*pairwise(EDGES), (0.0, 0.1)]
    for low, high in bins:
        said = [(claim.much_worse if much else claim.worse, claim) for claim in claims]
        inside = [(p, claim) for p, claim in said if low <= p < high or p == high == 1]
        label = f"**below {high:g}**" if (low, high) == bins[-1] else f"{low:g} to {high:g}"
        if not inside:
            rows.append([label, "0", "-", "-"])
            continue
        level = -POINT if much else 0.0
        worse = [float(c.gain < level) + (0.5 if c.gain == level else 0.0) for _, c in inside]
        mean, lower, upper = clustered(worse, [c.cluster for _, c in inside])
        stated = float(np.mean([p for p, _ in inside]))
        rows.append([label, str(len(inside)), f"{stated:.2f}", f"{mean:.2f} [{lower:.2f}, {upper:.2f}]"])
    return rows


def shown(title: str, claims: Sequence[Claim]) -> str:
    """Both statements side by side."""
    print(title)
    worse, much = reliability(claims, False), reliability(claims, True)
    columns = ["said", "worse: choices", "stated", "found", "by > 1 point: choices", "stated", "found"]
    return f"### {title}\n\n" + markdown(columns, [[*one, *two[1:]] for one, two in zip(worse, much, strict=True)])


def section(pool: Executor, draws: range, path: Path) -> str:
    fit = fitting(path, SIZES)
    sizes = ", ".join(map(str, fit))
    text = "## Is it as sure as it says?\n\n" + TEXT.format(draws=len(draws), sizes=sizes)
    hard: list[Claim] = []
    for name in CASES:
        jobs = [partial(claimed, name, budget, n, path) for budget in budgets_of(path) for n in fit]
        claims = [claim for job in jobs for of in pool.map(job, draws) for claim in of]
        if name == "as recorded":
            text += shown("As recorded", claims)
        else:
            hard += claims
            print(name, len(claims), *reliability(claims, False)[-1], *reliability(claims, True)[-1], flush=True)
    text += shown("Hard tables together", hard)
    for title, names in (("as recorded", list(CASES)[:1]), ("hard tables", list(CASES)[1:])):
        jobs = [partial(stopped, name, budget, n, path) for name in names for budget in budgets_of(path) for n in fit]
        ended = [one for job in jobs for one in pool.map(job, draws[: STOPPED if names[1:] else None])]
        spent = float(np.mean([share for _, share in ended]))
        claims = [claim for of, _ in ended for claim in of]
        text += shown(f"After `--until {UNTIL:g}` stopped, {title} ({percent(spent)} spent)", claims)
    jobs = [partial(known, kind, samples) for kind in KINDS for samples in SIMULATED]
    return text + shown("Simulated tables", [claim for job in jobs for of in pool.map(job, draws) for claim in of])
