"""Part `shares`: what is lost by measuring only a share of the evaluations."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.pooled import Pooled
from clasp_calib.search.strategies.race import Race

from .peers import PEERS, leaders
from .replayed import replayed
from .rules import RULES
from .statistics import markdown, percent, points
from .tables import budgets_of, drawn, fitting, recorded

LEFT_OUT, SIZES = "128", (16, 32, 64)
"""A budget between the others, and the samples of a class."""
SHARES = (0.05, 0.10, 0.15, 0.25, 0.50, 1.00)
PEER_DRAWS, PEER_SIZES = 4, (32,)
"""Of the peers: Optuna takes most of the time."""
FIRST = (2, 4, 6, 12)
"""Samples of halving's first rung: what it costs."""
Found = Mapping[str, list[tuple[float, float]]]
"""Name -> (share spent, what the choice is worth above that of the posterior when everything is measured)."""
TEXT = """\
What a search that measures a share of the evaluations chooses, against what the same posterior chooses when it knows
all of them; in points of true accuracy, means over nine classes, 95 % intervals over draws ({draws} of the search's own
strategies, {peers} of Optuna's). N is the number of samples of a class. Every search sees the same samples and the mean
of score and likelihood. The search's own strategies decide by the one posterior; Optuna's return their best mean, for
each class by itself. GPSampler's trials are a quarter of the samples, at least eight.

![Points against evaluations]({picture})

"""


def ours(budget: str, n: int, path: Path, seed: int) -> Found:
    draw = drawn(recorded(budget, path), n, seed)
    belief = draw.belief
    full = draw.worth([belief.leader(k) for k in range(len(draw.labels))]).mean()
    found: dict[str, list[tuple[float, float]]] = {}

    def note(name: str, spent: float, choice: Sequence[int]) -> None:
        found.setdefault(name, []).append((spent, float(draw.worth(choice).mean() - full)))

    for share in SHARES:
        outcome = replayed(Pooled(spend=share), draw, seed)
        note("pooled", outcome.spent, outcome.choice)
    for first in FIRST:
        if first < n:
            outcome = replayed(Halving(first=first), draw, seed)
            note(f"halving, first {first}", outcome.spent, outcome.choice)
    outcome = replayed(Race(), draw, seed)
    note("race", outcome.spent, outcome.choice)
    note("best mean, all measured", 1.0, RULES["best mean of score and likelihood"](draw, seed))
    return found


def theirs(budget: str, n: int, path: Path, name: str, seed: int) -> Found:
    draw = drawn(recorded(budget, path), n, seed)
    belief = draw.belief
    full = draw.worth([belief.leader(k) for k in range(len(draw.labels))]).mean()
    most = [int(share * n * len(draw.candidates)) for share in SHARES]
    of_class = [leaders(PEERS[name], table, draw.candidates, most, seed) for table in draw.signals]
    return {
        name: [
            (share, float(draw.worth([choices[i] for choices in of_class]).mean() - full))
            for i, share in enumerate(SHARES)
        ]
    }


def section(pool: Executor, draws: range, path: Path, picture: Path) -> str:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    few, sizes = draws[:PEER_DRAWS], fitting(path, SIZES)
    budgets = [budget for budget in budgets_of(path) if budget != LEFT_OUT]
    text = "## What a share of the evaluations is worth\n\n"
    text += TEXT.format(draws=len(draws), peers=len(few), picture=picture.name)
    figure, axes = plt.subplots(1, len(budgets), figsize=(9, 3.4), layout="constrained", squeeze=False)
    shown = PEER_SIZES[0]
    for budget, axis in zip(budgets, axes[0], strict=True):
        text += f"### {budget} tokens\n\n"
        for n in sizes:
            of = list(pool.map(partial(ours, budget, n, path), draws))
            curves = {name: np.array([one[name] for one in of]) for name in of[0]}
            for name in PEERS if n in PEER_SIZES else ():
                of = list(pool.map(partial(theirs, budget, n, path, name), few))
                curves[name] = np.array([one[name] for one in of])
            text += markdown([f"N = {n}", *map(percent, SHARES), "spent, where it decides"], _rows(curves))
            if n == shown:
                _plot(axis, curves)
        axis.set(title=f"{budget} tokens, N = {shown}", xlabel="evaluations, % of all", ylim=(-6, 1))
    axes[0, 0].set_ylabel("points against measuring all")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(picture, dpi=90)
    return text


def _rows(curves: Mapping[str, np.ndarray]) -> list[list[str]]:
    rows = []
    for name, found in curves.items():
        cells = [points(found[:, i, 1], "+") for i in range(found.shape[1])]
        if found.shape[1] == len(SHARES):
            rows.append([name, *cells, ""])
        else:
            rows.append([name, *[""] * len(SHARES), f"{percent(found[:, 0, 0].mean())}: {cells[0]}"])
    return rows


def _plot(axis, curves: Mapping[str, np.ndarray]) -> None:
    halving = [name for name in curves if name.startswith("halving")]
    joined = {name: found for name, found in curves.items() if name not in halving}
    joined["halving"] = np.concatenate([curves[name] for name in halving], 1)
    for name, found in joined.items():
        order = found[..., 0].mean(0).argsort()
        spent, worth = 100 * found[..., 0].mean(0)[order], 100 * found[:, order, 1]
        mean, error = worth.mean(0), 1.96 * worth.std(0, ddof=1) / np.sqrt(len(worth))
        if len(spent) == 1:
            axis.errorbar(spent, mean, error, marker="o", linestyle="", label=name)
        else:
            (line,) = axis.plot(spent, mean, marker=".", label=name)
            axis.fill_between(spent, mean - error, mean + error, alpha=0.15, color=line.get_color())
