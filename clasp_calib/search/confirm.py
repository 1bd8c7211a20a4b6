"""Whether a gain is more than noise: finalists against the default on samples that the search has not seen."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

FINALISTS = 3
"""Candidates compared in the final, beside the default. Our choice: each more costs one answer a sample, and makes it
harder to tell the best of them from luck."""
LEVEL = 0.05
"""A gain counts if luck gives one as large with at most this probability."""
FLIPS = 10_000
EXACT = 12
"""With no more pictures than this all sign flips are tried: 4096 at most."""


def chance(
    gains: NDArray[np.float64], leader: int, pictures: Sequence[Hashable], seed: int, flips: int = FLIPS
) -> float:
    """How often luck alone would show a gain at least as large as the leader's.

    If a finalist were no better than the default, each picture's summed gain would as well have had the other sign.
    So the signs are flipped at random, picture by picture and for all finalists at once, and the largest of the
    finalists' mean gains is compared with the leader's: a paired permutation test with the maximum statistic (Westfall
    and Young 1993), which holds for a leader that was picked among the finalists on the same samples, and for few
    samples. Whole pictures are flipped, since questions about one picture share its difficulty.

    Args:
        gains: ``[n, f]``, score of each finalist minus the default's on each sample.
        leader: column of the finalist in question.
        pictures: of the samples.
        seed: of the flips, if there are too many to try all.
        flips: how many are then tried.

    Returns:
        A one-sided p-value in (0, 1].
    """
    numbers = {picture: number for number, picture in enumerate(dict.fromkeys(pictures))}
    sums = np.zeros((len(numbers), gains.shape[1]))
    np.add.at(sums, [numbers[picture] for picture in pictures], gains)
    # Pictures on which nothing differs say nothing.
    sums = sums[sums.any(1)]
    if len(sums) <= EXACT:
        every = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        signs = 2.0 * every - 1
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (flips, len(sums)))
        # What was seen is one of the ways that it could have come.
        signs = np.concatenate([np.ones((1, len(sums))), 2.0 * drawn - 1])
    largest = (signs @ sums).max(1)
    return float((largest >= sums[:, leader].sum() - 1e-9).mean())
