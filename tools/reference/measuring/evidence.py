"""What paired scores say: differences with bootstrap intervals by picture, one p value each, corrected by Holm.

n scores, P pictures, G groups (classes), R resamples.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.studies.intervals import cluster_weights

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

RESAMPLES = 10_000
LEVEL = 0.05
"""Of significance; intervals hold the middle ``1 - LEVEL``."""


@dataclass(frozen=True)
class Paired:
    """A mean difference in score (from -1 to 1), its percentile interval, and its two-sided p value."""

    difference: float
    low: float
    high: float
    p: float
    samples: int
    pictures: int


def paired(
    differences: Sequence[float] | Floats,
    pictures: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Paired:
    """The mean of differences between two settings on the same questions, and how far chance goes.

    Pictures are drawn with replacement and bring all their questions. The p value is twice the share of resamples on
    the rarer side of zero, zero included on both, with one added to both counts so that it is never 0.

    Args:
        differences: [n], score of one setting minus score of the other; scores alone give a mean and its interval.
        pictures: [n], which picture each is about.
        groups: [n], where the mean is to be the mean over groups of each group's mean; ``None`` is one group.
        seed: of the resamples; the same for equally many pictures.
        resamples: R.

    Raises:
        ValueError: there are no differences.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        raise ValueError("no differences to test; expected at least one question")
    picture_n = _numbered(pictures)
    group_n = np.zeros(len(values), dtype=np.int64) if groups is None else _numbered(groups)
    shape = (int(picture_n.max()) + 1, int(group_n.max()) + 1)
    sum_PG, count_PG = np.zeros(shape), np.zeros(shape)
    np.add.at(sum_PG, (picture_n, group_n), values)
    np.add.at(count_PG, (picture_n, group_n), 1)
    plain_G = sum_PG.sum(0) / count_PG.sum(0)
    weight_RP = resampling(shape[0], seed, resamples)
    total_RG = weight_RP @ count_PG
    # A group that a resample happens to miss counts with its plain mean.
    mean_RG = np.where(total_RG > 0, weight_RP @ sum_PG / np.maximum(total_RG, 1), plain_G)
    mean_R = mean_RG.mean(1)
    low, high = np.quantile(mean_R, [LEVEL / 2, 1 - LEVEL / 2])
    # Sums in another order round differently: what is zero up to that is zero.
    rarer = min(int((mean_R <= 1e-12).sum()), int((mean_R >= -1e-12).sum()))
    p = min(1.0, 2 * (1 + rarer) / (1 + resamples))
    return Paired(float(plain_G.mean()), float(low), float(high), p, len(values), shape[0])


@lru_cache(maxsize=4)
def resampling(pictures: int, seed: int, resamples: int) -> Floats:
    """How often each picture occurs in each resample, ``[R, P]``."""
    weights: Floats = cluster_weights(pictures, seed, resamples).astype(np.float64)
    return weights


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's step-down correction of a family of p values: those below `LEVEL` err with at most that probability.

    The least is multiplied by the size of the family, the next by one less, and so on; none falls under one before it.
    """
    adjusted: dict[Key, float] = {}
    least = 0.0
    for place, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[key]))
        adjusted[key] = least
    return {key: adjusted[key] for key in p_values}


def _numbered(names: Sequence[Hashable]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)
