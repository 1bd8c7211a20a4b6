"""What score tables say of the candidates: least squares with a free level for each sample.

Shapes: K classes, B budgets, n samples of a class, C candidates. A table is [B, n, C], with NaN where a candidate was
not measured on a sample.

A sample is easy or hard for all candidates alike. Its level at a budget is unknown and projected out, so that only
differences between candidates on one sample count (pairing), whichever of them were measured. A sample with one
candidate says nothing. What is luck at one budget is partly the same luck at another, since a candidate sees the same
sample: the noise of a cell is correlated between budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR_FREEDOM = 10.0
"""A table's noise variance is shrunk towards that of all tables as by so many degrees of freedom. Our choice: where
all candidates are right on all samples it would be zero, and nothing could be surer."""
LEAST_NOISE = 1e-4
"""Sum of squares of one made-up disagreement, so that tables without any are not taken for certainty. Our choice."""
PRIOR_CORRELATION, MOST_CORRELATION = 0.6, 0.95
"""Of the noise at two budgets: what it is shrunk towards, as variances are, and never above. Our choice: 0.6 to 0.8
were measured on the embedded model; near 1, differences between budgets would seem known from few samples."""
RANK = 1e-9
"""Eigenvalues below this share of the largest stand for differences that were not measured."""


@dataclass(frozen=True)
class Information:
    """Of one class, in units of its noise.

    Attributes:
        root: [B * C, B * C], the symmetric root S of the precision of the candidates' means, budget by budget;
            differences that were not measured lie in its null space.
        seen: [B * C], z, such that ``z = S f + e`` with standard normal ``e``, for the true means ``f``.
        noise: [B], variance of one score about its sample's level and its candidate's mean.
    """

    root: Floats
    seen: Floats
    noise: Floats


def information(tables: Sequence[Floats]) -> list[Information]:
    """What each class's table says; noise variances are shrunk towards each other.

    Args:
        tables: K tables [B, n, C], NaN where not measured; n may be 0 and differ.
    """
    tables = [np.where((~np.isnan(table)).sum(2, keepdims=True) > 1, table, np.nan) for table in tables]
    variances, correlation = noise(tables)
    between = (1 - correlation) * np.eye(len(tables[0])) + correlation
    found = []
    for table, variance in zip(tables, variances, strict=True):
        precision, pull = _normal_equations(table, between * np.sqrt(np.outer(variance, variance)))
        values, vectors = np.linalg.eigh(precision)
        positive = values > RANK * values[-1]
        vectors, roots = vectors[:, positive], np.sqrt(values[positive])
        found.append(Information((vectors * roots) @ vectors.T, vectors @ (vectors.T @ pull / roots), variance))
    return found


def noise(tables: Sequence[Floats]) -> tuple[Floats, float]:
    """[K, B] noise variances, and the noise's correlation between two budgets.

    Args:
        tables: as of `information`, without samples that have one candidate.
    """
    residuals, freedom = zip(*(_left_over(table) for table in tables), strict=True)
    squares = np.array([np.nansum(of**2, (1, 2)) for of in residuals])
    common = (squares.sum() + LEAST_NOISE) / max(1, np.sum(freedom))
    variances: Floats = (squares + PRIOR_FREEDOM * common) / (np.array(freedom) + PRIOR_FREEDOM)
    alike = PRIOR_FREEDOM * common
    together = PRIOR_CORRELATION * alike
    for of in residuals:
        for first, second in combinations(of, 2):
            both = ~np.isnan(first * second)
            together += float(first[both] @ second[both])
            alike += float(np.linalg.norm(first[both]) * np.linalg.norm(second[both]))
    return variances, float(np.clip(together / alike, 0, MOST_CORRELATION))


def _left_over(table: Floats) -> tuple[Floats, list[int]]:
    """[B, n, C] residuals of a fit by levels and means at each budget by itself, and [B] their degrees of freedom."""
    residuals, freedom = np.empty_like(table), []
    for budget, score in enumerate(table):
        measured = ~np.isnan(score)
        precision, pull = _normal_equations(score[None], np.eye(1))
        means = np.linalg.pinv(precision, RANK, hermitian=True) @ pull
        apart = np.where(measured, score - means, 0.0)
        count = measured.sum(1, keepdims=True)
        level = apart.sum(1, keepdims=True) / np.maximum(1, count)
        residuals[budget] = np.where(measured, apart - level, np.nan)
        rank = np.linalg.matrix_rank(precision, RANK * max(1, len(score)), hermitian=True)
        freedom.append(int(measured.sum() - (count > 0).sum() - rank))
    return residuals, freedom


def _normal_equations(table: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Precision [B * C, B * C] and pull [B * C] of the means, by generalised least squares with free levels.

    Args:
        table: [B, n, C].
        covariance: [B, B] of one cell's noise.
    """
    budgets, _, candidates = table.shape
    measured = ~np.isnan(table)
    score = np.where(measured, table, 0.0)
    weight = _weights(measured, covariance)
    level = np.linalg.pinv(weight.sum(1), hermitian=True)
    # [n, C, B]: how much a cell tells of the levels of its sample.
    weighted = np.einsum("ncab,bnc->nca", weight, score)
    of_level = weight @ level[:, None]
    precision = -np.einsum("ncax,ndbx->acbd", of_level, weight, optimize=True)
    every = np.arange(candidates)
    precision[:, every, :, every] += weight.sum(0)
    pull = weighted.sum(0) - np.einsum("ncax,nx->ca", of_level, weighted.sum(1))
    size = budgets * candidates
    return precision.reshape(size, size), pull.T.reshape(size)


def _weights(measured: NDArray[np.bool_], covariance: Floats) -> Floats:
    """[n, C, B, B] inverse covariances of every cell's noise at the budgets where it was measured, 0 elsewhere."""
    budgets = len(covariance)
    pattern = np.einsum("bnc,b->nc", measured, 2 ** np.arange(budgets))
    inverses = np.zeros((2**budgets, budgets, budgets))
    for number in np.unique(pattern):
        known = np.flatnonzero((number >> np.arange(budgets)) & 1)
        inverses[np.ix_([number], known, known)] = np.linalg.inv(covariance[np.ix_(known, known)])
    weights: Floats = inverses[pattern]
    return weights
