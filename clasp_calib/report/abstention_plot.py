"""What each threshold of a router would lead to, as curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_trade_off(thresholds: Sequence[float], curves: Mapping[str, Sequence[float]], chosen: int, path: Path) -> None:
    """Write a PNG: one curve over the thresholds for each name, and a line at the chosen threshold.

    Args:
        thresholds: ascending, in [0, 1].
        curves: name -> a value for each threshold.
        chosen: place of the chosen threshold.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(thresholds, values, label=name)
    axes.axvline(thresholds[chosen], color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel(f"the router abstains below this probability (chosen: {thresholds[chosen]:.2f})")
    axes.set_ylabel("of held-out questions")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
