"""Confidence intervals of mean scores whose samples come in clusters: many questions about one picture."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float
    samples: int


def bootstrap_weights(clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each sample occurs in each resample, ``[resamples, samples]``; whole clusters are drawn.

    Pictures are drawn with replacement and bring all their questions: questions about one picture share its
    difficulty, and treating them as independent would make intervals too narrow.
    """
    names = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    index = np.array([names[cluster] for cluster in clusters])
    weights: NDArray[np.int64] = cluster_weights(len(names), seed, resamples)[:, index]
    return weights


def cluster_weights(clusters: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each of so many clusters occurs in each resample, ``[resamples, clusters]``."""
    drawn: NDArray[np.int64] = np.random.default_rng(seed).multinomial(
        clusters, np.full(clusters, 1 / clusters), resamples
    )
    return drawn


def interval(scores: NDArray[np.float64], weights: NDArray[np.int64]) -> Interval:
    """Mean of ``scores [samples]`` and its interval under the resamples ``[resamples, samples]``."""
    totals = weights.sum(1)
    means = (weights @ scores)[totals > 0] / totals[totals > 0]
    return percentile_interval(float(scores.mean()), means, len(scores))


def macro_interval(scores: NDArray[np.float64], groups: NDArray[np.int64], weights: NDArray[np.int64]) -> Interval:
    """Mean over groups of the groups' means: ``scores`` and ``groups`` are ``[samples]``."""
    ids = np.unique(groups)
    columns = []
    for group in ids:
        inside = groups == group
        totals = weights[:, inside].sum(1)
        # A group that a resample happens to miss counts with its plain mean.
        mean = np.where(
            totals > 0, (weights[:, inside] @ scores[inside]) / np.maximum(totals, 1), scores[inside].mean()
        )
        columns.append(mean)
    plain = float(np.mean([scores[groups == g].mean() for g in ids]))
    return percentile_interval(plain, np.mean(columns, axis=0), len(scores))


def percentile_interval(mean: float, resampled: NDArray[np.float64], samples: int) -> Interval:
    """What was found, and the middle 95 % of what resamples ``[resamples]`` gave."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), samples)
