"""Evaluation results as bars."""

from pathlib import Path

from clasp_calib.calib.evaluation import SETTINGS, Evaluation


def plot_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write a PNG: bars of every class and setting with their intervals, one panel a budget."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.8 * len(evaluation.budgets)), layout="constrained")
    panels = figure.subplots(len(evaluation.budgets), 1, squeeze=False)[:, 0]
    for axes, result in zip(panels, evaluation.budgets, strict=True):
        for number, setting in enumerate(SETTINGS):
            intervals = result.scores[setting]
            places = [i + (number - 1.5) * 0.2 for i in range(len(intervals))]
            means = [100 * i.mean for i in intervals.values()]
            below = [100 * max(0.0, i.mean - i.low) for i in intervals.values()]
            above = [100 * max(0.0, i.high - i.mean) for i in intervals.values()]
            axes.bar(places, means, 0.2, yerr=[below, above], label=setting, error_kw={"lw": 0.8})
        axes.set_xticks(range(len(result.gain)), list(result.gain))
        axes.set_ylabel("score, %")
        axes.set_title(result.title, fontsize=10)
    panels[0].legend(ncols=4, fontsize=8, loc="lower left")
    figure.savefig(path, dpi=120)
