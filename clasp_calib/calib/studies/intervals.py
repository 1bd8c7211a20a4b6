"""Confidence intervals of mean scores whose samples come in clusters: many questions about one picture."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.shares import FEW, LEVEL, difference_interval, share_interval

RESAMPLES = 2000
Kind = Literal["shares", "gains", "other"]
"""Scores in [0, 1], paired differences of such in [-1, 1], and what is neither, such as likelihoods."""


@dataclass(frozen=True)
class Interval:
    """A mean and its interval: of the percentile bootstrap, or from counts where that cannot speak."""

    mean: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Clusters:
    """Samples by cluster, and resamples of them.

    Attributes:
        number: of each sample's cluster, [samples].
        weights: how often each sample occurs in each resample, [resamples, samples]; whole clusters are drawn.
    """

    number: NDArray[np.int64]
    weights: NDArray[np.int64]

    @staticmethod
    def of(clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES) -> "Clusters":
        """Draw the clusters of samples with replacement.

        Pictures bring all their questions: questions about one picture share its difficulty, and treating them as
        independent would make intervals too narrow.
        """
        names = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
        number = np.array([names[cluster] for cluster in clusters])
        return Clusters(number, cluster_weights(len(names), seed, resamples)[:, number])

    def inside(self, chosen: NDArray[np.bool_]) -> "Clusters":
        """Some of the samples, in the same resamples."""
        return Clusters(self.number[chosen], self.weights[:, chosen])

    @property
    def count(self) -> int:
        """Different clusters."""
        return len(np.unique(self.number))

    def means(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean in each resample; the plain mean where a resample happens to have no sample."""
        totals = self.weights.sum(1)
        means: NDArray[np.float64] = np.where(
            totals > 0, (self.weights @ scores) / np.maximum(totals, 1), scores.mean()
        )
        return means


def cluster_weights(clusters: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each of so many clusters occurs in each resample, ``[resamples, clusters]``."""
    drawn: NDArray[np.int64] = np.random.default_rng(seed).multinomial(
        clusters, np.full(clusters, 1 / clusters), resamples
    )
    return drawn


def interval(scores: NDArray[np.float64], clusters: Clusters, kind: Kind = "shares") -> Interval:
    """Mean of scores [samples] and its interval.

    Few clusters, or scores that are all alike, resample to (nearly) one mean, whatever could have come as well. Then
    the interval is that of a share of as many cases as there are clusters.

    Args:
        scores: of the samples.
        clusters: of the samples.
        kind: of the scores; ``other`` are resampled in any case.
    """
    mean = float(scores.mean())
    counted = _counted(scores, clusters, kind)
    return Interval(mean, *(counted or _middle(clusters.means(scores))), len(scores))


def macro_interval(
    scores: NDArray[np.float64], groups: NDArray[np.int64], clusters: Clusters, kind: Kind = "shares"
) -> Interval:
    """Mean over groups of the groups' means: ``scores`` and ``groups`` are [samples].

    Groups that resampling cannot speak of stay as they are in it, and widen the interval by theirs.
    """
    plain, columns, below, above = [], [], [], []
    for group in np.unique(groups):
        inside = groups == group
        mean, of = float(scores[inside].mean()), clusters.inside(inside)
        counted = _counted(scores[inside], of, kind)
        plain.append(mean)
        columns.append(np.full(len(clusters.weights), mean) if counted else of.means(scores[inside]))
        if counted:
            below.append(mean - counted[0])
            above.append(counted[1] - mean)
    mean = float(np.mean(plain))
    low, high = _middle(np.mean(columns, axis=0))
    if below:
        low = mean - math.hypot(mean - low, *(part / len(plain) for part in below))
        high = mean + math.hypot(high - mean, *(part / len(plain) for part in above))
    return Interval(mean, low, high, len(scores))


def resampled_interval(
    value: float, resampled: NDArray[np.float64], samples: int, clusters: int, top: float = 1.0
) -> Interval:
    """A value in [0, top] with the middle of what resamples gave; where they cannot speak, as a share of ``top``."""
    if clusters >= FEW and np.ptp(resampled) > 0:
        return Interval(value, *_middle(resampled), samples)
    low, high = share_interval(value / top, clusters)
    return Interval(value, low * top, high * top, samples)


def _counted(scores: NDArray[np.float64], clusters: Clusters, kind: Kind) -> tuple[float, float] | None:
    """The interval from counts; ``None`` where resampling speaks, or scores are no shares."""
    count = clusters.count
    if kind == "other" or (count >= FEW and np.ptp(scores) > 0):
        return None
    if kind == "shares":
        return share_interval(float(scores.mean()), count)
    up, down = float(scores.clip(0).mean()), float((-scores).clip(0).mean())
    return difference_interval(up, down, count)


def _middle(resampled: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)
