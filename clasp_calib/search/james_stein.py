"""Additive James-Stein: the pooled model without relations between candidates, in closed form, for very many of them.

Shapes: K tables, n samples, C candidates.

A candidate's mean in a class is shrunk towards its mean over the classes, and that towards all candidates' mean, by
how much such means differ beyond their noise (James and Stein 1961; Efron and Morris 1973). Nothing is of order C².
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clasp_calib.search.noise import Floats, variances_of

SWEEPS = 30
"""Of alternating between levels and means; one is enough where all candidates were measured on all samples."""
LEAST_VARIANCE = 1e-3
"""Of either effect, in units of one score's noise variance, so that nothing is believed blindly. Our choice."""


class JamesStein:
    """The posterior of the tables' means, as normal variables that are independent of each other.

    Args:
        tables: K tables [n, C], NaN where not measured.

    Attributes:
        noise: [K], variance of one score about its sample's level and its candidate's mean.
    """

    def __init__(self, tables: Sequence[Floats]):
        tables = [np.where((~np.isnan(table)).sum(1, keepdims=True) > 1, table, np.nan) for table in tables]
        fits = [_least_squares(table) for table in tables]
        found = np.array([mean for mean, _, _, _ in fits])
        count = np.array([seen for _, seen, _, _ in fits])
        squares, freedom = np.array([(s, f) for _, _, s, f in fits]).T
        self.noise: Floats = variances_of(squares, freedom, tables)[1]
        precision = count / self.noise[:, None]
        self._mean, self._variance = _shrunk(found, precision, LEAST_VARIANCE * float(self.noise.mean()))

    def weights(self, group: int) -> Floats:
        """[1], as a `clasp_calib.search.hierarchy.Hierarchy` has one for each point of its grid."""
        return np.ones(1)

    def mean(self, group: int, of: slice) -> Floats:
        """[m] means of the candidates ``of`` of a table."""
        mean: Floats = self._mean[group, of]
        return mean

    def moments(self, point: int, group: int, of: slice) -> tuple[Floats, Floats]:
        """Mean [m] and variances [m] of the candidates ``of`` of a table."""
        return self._mean[group, of], self._variance[group, of]


def _least_squares(table: Floats) -> tuple[Floats, Floats, float, int]:
    """Means [C] about 0, how many scores each rests on [C], the residual sum of squares and its degrees of freedom.

    No sample of the table has one candidate.
    """
    measured = ~np.isnan(table)
    score, count = np.where(measured, table, 0.0), measured.sum(0)
    of_sample = np.maximum(1, measured.sum(1, keepdims=True))
    mean = np.zeros(table.shape[1])
    for _ in range(SWEEPS):
        level = (measured * (score - mean)).sum(1, keepdims=True) / of_sample
        mean = (measured * (score - level)).sum(0) / np.maximum(1, count)
    left = measured * (score - level - mean)
    seen = count > 0
    mean = np.where(seen, mean - mean[seen].mean() if seen.any() else 0.0, 0.0)
    freedom = int(count.sum()) - int(measured.any(1).sum()) - max(0, int(seen.sum()) - 1)
    # A level is known no better than its sample's scores: what they tell of a candidate is less by one in so many.
    told = (measured * (1 - 1 / of_sample)).sum(0)
    return mean, told, float((left**2).sum()), max(0, freedom)


def _shrunk(found: Floats, precision: Floats, least: float) -> tuple[Floats, Floats]:
    """Means and variances [K, C] under a shared and an own effect, whose variances are moments of ``found``."""
    known = precision > 0
    noise = 1 / np.where(known, precision, 1)
    own = _variance_between(found, noise, known, least)
    weight = known / (own + noise)
    total = np.maximum(weight.sum(0), 1e-300)
    shared = (weight * found).sum(0) / total
    seen = known.any(0)
    of_shared = max(least, float(np.mean(shared[seen] ** 2 - 1 / total[seen])) if seen.any() else 0.0)
    kept = of_shared / (of_shared + 1 / total)
    shared, doubt = kept * shared, kept / total
    pull = own * weight
    mean = shared + pull * (found - shared)
    return mean, own * (1 - pull) + (1 - pull) ** 2 * doubt


def _variance_between(found: Floats, noise: Floats, known: NDArray[np.bool_], least: float) -> float:
    """Variance of a candidate's means between classes, beyond their noise."""
    count = known.sum(0)
    several = count > 1
    mean = (known * found).sum(0) / np.maximum(1, count)
    squares = (known * (found - mean) ** 2)[:, several].sum()
    expected = (known * noise * (1 - 1 / np.maximum(1, count)))[:, several].sum()
    freedom = (count - 1)[several].sum()
    return max(least, float((squares - expected) / freedom)) if freedom else least
