"""Means with intervals, and Markdown tables of them."""

from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np

from .tables import Floats

Z = NormalDist().inv_cdf(0.975)


def half_width(values: Sequence[float] | Floats) -> float:
    """Of the 95 % interval of a mean."""
    values = np.asarray(values, float)
    return float(Z * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def points(values: Sequence[float] | Floats, sign: str = "") -> str:
    """A mean in points with its 95 % interval."""
    return f"{100 * np.mean(values):{sign}.1f} ± {100 * half_width(values):.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def wilson(hits: float, of: int) -> str:
    """A share in percent with Wilson's 95 % interval."""
    if of == 0:
        return "-"
    centre = (hits + Z * Z / 2) / (of + Z * Z)
    half = Z / (of + Z * Z) * np.sqrt(hits * (of - hits) / of + Z * Z / 4)
    return f"{100 * hits / of:.1f} [{100 * (centre - half):.0f}, {100 * (centre + half):.0f}]"


def clustered(values: Sequence[float], clusters: Sequence[Hashable], times: int = 1000) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval, drawing whole clusters."""
    numbers = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    which = np.array([numbers[cluster] for cluster in clusters])
    sums = np.bincount(which, weights=values, minlength=len(numbers))
    counts = np.bincount(which, minlength=len(numbers))
    chosen = np.random.default_rng(0).integers(0, len(numbers), (times, len(numbers)))
    low, high = np.quantile(sums[chosen].sum(1) / counts[chosen].sum(1), [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    text = "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
    print(text, flush=True)
    return text + "\n"
