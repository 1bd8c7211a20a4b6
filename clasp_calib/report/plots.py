"""Results as pictures: a PNG each, drawn by matplotlib, which the extra ``plots`` brings.

Without it every function here raises ``ImportError``; ask `plot_path` before the work that is to be plotted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
def _panels(path: Path, size: tuple[float, float], count: int = 1, columns: int = 1) -> Iterator[Sequence[Any]]:
    """``count`` rows of axes to draw on, one row after the other, then written; folders are made."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield list(figure.subplots(count, columns, squeeze=False).ravel())
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _plain(names: Iterable[str]) -> list[str]:
    """Names in which matplotlib finds no formula."""
    return [name.replace("$", r"\$") for name in names]


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
            axes.set_xticks(range(len(result.gain)), _plain(result.gain))
            axes.set_ylabel("score, %")
            axes.set_title(result.title, fontsize=10)
        panels[0].legend(ncols=4, fontsize=8, loc="lower left")


def plot_search(artifact: Artifact, path: Path) -> None:
    """Write what a search found, a row of two panels a budget.

    The left one shows the gain of every class over the default with its 95 % interval, the right one how probable it is
    that the choice is worse, at all (light) and by more than a point (dark). Budgets without verdicts are left out.
    """
    entries = [entry for entry in artifact.manifest.budgets if entry.decision]
    with _panels(path, (10, 0.6 + sum(1 + 0.28 * len(e.choices) for e in entries)), len(entries) or 1, 2) as panels:
        for entry, gains, risks in zip(entries, panels[::2], panels[1::2], strict=False):
            told = {label: of for label in artifact.classes if (of := entry.choices[label].verdict)}
            for place, of in enumerate(told.values()):
                gains.plot([100 * of.low, 100 * of.high], [place, place], color="C0", lw=1.5)
                gains.plot([100 * of.gain], [place], "o", color="C0", ms=5)
            gains.axvline(0, color="black", lw=0.8)
            gains.set_xlabel("gain over the model's own setting, points")
            gains.set_title(f"budget {entry.name}", fontsize=10)
            risks.barh(range(len(told)), [100 * of.worse for of in told.values()], color="C1", alpha=0.4, label="worse")
            risks.barh(
                range(len(told)), [100 * of.much_worse for of in told.values()], color="C1", label="by > 1 point"
            )
            risks.set_xlim(0, 100)
            risks.set_xlabel("probability that the choice is worse, %")
            risks.legend(fontsize=8, loc="lower right")
            for axes in (gains, risks):
                axes.set_yticks(range(len(told)), _plain(told))
                axes.set_ylim(len(told) - 0.5, -0.5)


def plot_contest(contest: Contest, path: Path) -> None:
    """Write one line a method through its budgets, macro score over FLOPs of the decoder's prefill."""
    tables = {budget: contest.comparison(budget).table() for budget in contest.budgets}
    names = dict.fromkeys(e.method for e in contest.entrants if not (e.unpruned or e.mixed))
    with _panels(path, (10, 6)) as (axes,):
        for (own, marker), name in zip(cycle(STYLES), names, strict=False):
            mine = sorted((e for e in contest.entrants if e.method == name), key=contest.flops)
            costs = [contest.flops(e) / 1e9 for e in mine]
            means = [100 * tables[e.budget][name][MACRO].mean for e in mine]
            colour, width = ("black", 2.2) if name == CALIBRATED else (own, 1.0)
            axes.plot(costs, means, marker + "-", label=_plain([name])[0], markersize=5, color=colour, linewidth=width)
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
