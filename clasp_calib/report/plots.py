"""Results as pictures: a PNG each, drawn by matplotlib, which the extra ``plots`` brings.

Without it every function here raises ``ImportError``; ask `plot_path` before the work that is to be plotted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.manifest import CALIBRATED, MACRO
from clasp_calib.calib.studies.contest import UNPRUNED, Contest
from clasp_calib.calib.studies.evaluation import Evaluation
from clasp_calib.common.progress import note

STYLES = [(f"C{number}", marker) for marker in "osv^D" for number in range(10)]
"""Colour and marker of each method of a contest."""


def plot_path(path: Path) -> Path | None:
    """``path``, or ``None`` where no plot can be drawn, which is said. Ask before the work, not after it."""
    if find_spec("matplotlib"):
        return path
    note("going on without plots, which need matplotlib: pip install 'clasp-calib[plots]'")
    return None


@contextmanager
def _panels(path: Path, size: tuple[float, float], count: int = 1) -> Iterator[Sequence[Any]]:
    """``count`` axes below each other to draw on, then written; folders are made."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield list(figure.subplots(count, 1, squeeze=False)[:, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write bars of every class and setting with their intervals, one panel a budget."""
    with _panels(path, (11, 2.8 * len(evaluation.budgets)), len(evaluation.budgets)) as panels:
        for axes, result in zip(panels, evaluation.budgets, strict=True):
            width = 0.8 / len(result.scores)
            for number, (setting, intervals) in enumerate(result.scores.items()):
                places = [i + (number - (len(result.scores) - 1) / 2) * width for i in range(len(intervals))]
                means = [100 * i.mean for i in intervals.values()]
                below = [100 * max(0.0, i.mean - i.low) for i in intervals.values()]
                above = [100 * max(0.0, i.high - i.mean) for i in intervals.values()]
                axes.bar(places, means, width, yerr=[below, above], label=setting, error_kw={"lw": 0.8})
            axes.set_xticks(range(len(result.gain)), list(result.gain))
            axes.set_ylabel("score, %")
            axes.set_title(result.title, fontsize=10)
        panels[0].legend(ncols=4, fontsize=8, loc="lower left")


def plot_pareto(artifact: Artifact, path: Path) -> None:
    """Write what a search found on the selection split: score against mean tokens.

    A thin line is a class and the thick one their mean; dashed is the default.
    """
    with _panels(path, (8, 4.5)) as (axes,):
        shown = {label: of for label, of in _points(artifact).items() if of}
        for number, (label, of) in enumerate(shown.items()):
            tokens, chosen, default = zip(*of, strict=True)
            axes.plot(tokens, [100 * s for s in chosen], "o-", color=f"C{number % 10}", lw=1, ms=3, label=label)
            axes.plot(tokens, [100 * s for s in default], "x--", color=f"C{number % 10}", lw=0.7, ms=3)
        # A mean over other classes at another budget would be no curve.
        everywhere = [of for of in shown.values() if len(of) == max(map(len, shown.values()))]
        columns = list(zip(*everywhere, strict=True))
        if columns:
            means = [[sum(values) / len(values) for values in zip(*column, strict=True)] for column in columns]
            tokens, chosen, default = zip(*means, strict=True)
            axes.plot(tokens, [100 * s for s in chosen], "o-", color="black", lw=2.5, label="macro")
            axes.plot(tokens, [100 * s for s in default], "x--", color="black", lw=2, label="macro, default")
        axes.set_xlabel("mean visual tokens a decoder layer works on")
        axes.set_ylabel("score on the selection split, %")
        axes.legend(ncols=3, fontsize=8)


def plot_contest(contest: Contest, path: Path) -> None:
    """Write one line a method through its budgets, macro score over FLOPs of the decoder's prefill."""
    tables = {budget: contest.comparison(budget).table() for budget in contest.budgets}
    names = dict.fromkeys(e.method for e in contest.entrants if e.method != UNPRUNED)
    with _panels(path, (10, 6)) as (axes,):
        for (own, marker), name in zip(cycle(STYLES), names, strict=False):
            mine = sorted((e for e in contest.entrants if e.method == name), key=contest.flops)
            costs = [contest.flops(e) / 1e9 for e in mine]
            means = [100 * tables[e.budget][name][MACRO].mean for e in mine]
            colour, width = ("black", 2.2) if name == CALIBRATED else (own, 1.0)
            axes.plot(costs, means, marker + "-", label=name, markersize=5, color=colour, linewidth=width)
        (unpruned,) = (e for e in contest.entrants if e.method == UNPRUNED)
        level = 100 * tables[contest.budgets[0]][UNPRUNED][MACRO].mean
        label = f"{UNPRUNED}, {contest.flops(unpruned) / 1e9:.3g} GFLOPs"
        axes.axhline(level, color="grey", linestyle="--", linewidth=1.0, label=label)
        axes.set_xlabel("decoder GFLOPs of a prefill")
        axes.set_ylabel("mean score over classes, %")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_trade_off(thresholds: Sequence[float], curves: Mapping[str, Sequence[float]], chosen: int, path: Path) -> None:
    """Write what each threshold of a router would lead to: one curve for each name, and a line at the chosen one.

    Args:
        thresholds: ascending, in [0, 1].
        curves: name -> a value for each threshold.
        chosen: place of the chosen threshold.
        path: where to write.
    """
    with _panels(path, (7, 4)) as (axes,):
        for name, values in curves.items():
            axes.plot(thresholds, values, label=name)
        axes.axvline(thresholds[chosen], color="black", linewidth=0.8, linestyle="--")
        axes.set_xlabel(f"the router abstains below this probability (chosen: {thresholds[chosen]:.2f})")
        axes.set_ylabel("of held-out questions")
        axes.legend(fontsize=8)


def _points(artifact: Artifact) -> dict[str, list[tuple[float, float, float]]]:
    """Class -> for each budget mean tokens a layer, score of the choice, score of the default."""
    entries = sorted(artifact.manifest.budgets, key=lambda entry: entry.mean_tokens)
    return {
        label: [
            (entry.mean_tokens, choice.selection, choice.selection_default)
            for entry in entries
            if (choice := entry.choices[label]).selection is not None and choice.selection_default is not None
        ]
        for label in artifact.classes
    }
