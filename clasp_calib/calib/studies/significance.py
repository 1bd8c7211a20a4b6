"""Whether a difference on the same samples can be chance, for many differences at a time."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FLIPS = 100_000
"""Random sign patterns. The smallest p is one in so many, which leaves room for Holm's factor over dozens."""
AT_ONCE = 1 << 22
"""Signs in memory together: about 100 MB with what they are made of."""


def sign_flip_p(
    differences: NDArray[np.float64], groups: NDArray[np.int64], clusters: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Two-sided p of the macro mean of paired differences, by the sign-flip test over whole clusters.

    If two settings were the same but for chance, a cluster's differences could as well have the other sign. See
    Good, Permutation, Parametric and Bootstrap Tests of Hypotheses (2005), chapter 3.

    Args:
        differences: [settings, samples].
        groups: of each sample, [samples], from 0; the macro mean is that of the groups' means.
        clusters: of each sample, [samples], from 0.
        seed: of the signs, which are the same for all settings.

    Returns:
        [settings], at least 1 / (`FLIPS` + 1).
    """
    sizes = np.bincount(groups)
    weights = 1 / sizes[groups] / np.count_nonzero(sizes)
    count = int(clusters.max()) + 1
    sums = np.zeros((len(differences), count))
    for row, values in enumerate(differences * weights):
        sums[row] = np.bincount(clusters, values, count)
    seen = np.abs(sums.sum(1))
    # A sum of the same numbers in another order may differ in its last bits.
    least = seen * (1 - 1e-9) - 1e-12
    rng, reached = np.random.default_rng(seed), np.zeros(len(sums), dtype=np.int64)
    step = max(AT_ONCE // count, 1)
    for start in range(0, FLIPS, step):
        signs = rng.integers(0, 2, (min(step, FLIPS - start), count)) * 2.0 - 1.0
        reached += (np.abs(signs @ sums.T) >= least).sum(0)
    return np.asarray((reached + 1) / (FLIPS + 1))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted so that among all of them a false alarm at level a has at most the probability a.

    Holm, Scandinavian Journal of Statistics 6 (1979): the smallest times their number, the next times one less, and
    none below one before it.
    """
    order: Sequence[str] = sorted(p, key=lambda name: p[name])
    adjusted: dict[str, float] = {}
    so_far = 0.0
    for place, name in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * p[name]))
        adjusted[name] = so_far
    return {name: adjusted[name] for name in p}
