"""Results as pictures: bars of an evaluation, and what a search found at each budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clasp_calib.calib.studies.evaluation import Evaluation


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write a PNG: bars of every class and setting with their intervals, one panel a budget."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8 * len(evaluation.budgets)), layout="constrained")
    panels = figure.subplots(len(evaluation.budgets), 1, squeeze=False)[:, 0]
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
    figure.savefig(path, dpi=120)


def plot_pareto(points: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """Write a PNG: score against mean tokens, a line a class and a thick one for their mean; dashed the default.

    Args:
        points: class -> for each budget mean tokens a layer, score of the choice, score of the default.
        path: where to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    shown = {label: of for label, of in points.items() if of}
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
    figure.savefig(path, dpi=120)
