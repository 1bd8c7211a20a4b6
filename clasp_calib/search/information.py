"""What score tables say of the candidates: generalised least squares with a free level for each sample.

Shapes: K classes, B budgets, n samples of a class, C candidates, P kernels, U patterns of what was measured. A table is
[B, n, C], with NaN where a candidate was not measured on a sample.

A sample is easy or hard for all candidates alike. Its level at a budget is unknown and projected out, so that only
differences between candidates on one sample count (pairing), whichever of them were measured. A sample with one
candidate says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.search.noise import Floats, estimate

RANK = 1e-9
"""Eigenvalues below this share of the largest stand for differences that were not measured."""
AT_ONCE = 64
"""Patterns whose covariances are inverted together."""


@dataclass(frozen=True)
class Information:
    """Of one class, in units of its noise.

    Attributes:
        root: [B * C, B * C], the symmetric root S of the precision of the candidates' means, budget by budget;
            differences that were not measured lie in its null space.
        seen: [B * C], z, such that ``z = S f + e`` with standard normal ``e``, for the true means ``f``.
        noise: [B * C, B * C], covariance of one sample's scores about its levels and the candidates' means.
        variance: of a score, averaged over budgets.
    """

    root: Floats
    seen: Floats
    noise: Floats
    variance: float


def information(tables: Sequence[Floats], kernels: Floats) -> list[Information]:
    """What each class's table says.

    Args:
        tables: K tables [B, n, C], NaN where not measured; n may be 0 and differ.
        kernels: [P, C, C], how alike candidates are.
    """
    tables = [np.where((~np.isnan(table)).sum(2, keepdims=True) > 1, table, np.nan) for table in tables]
    noise = estimate(tables, kernels)
    found = []
    for group, table in enumerate(tables):
        covariance = noise.of(group)
        precision, pull = _normal_equations(table, covariance)
        values, vectors = np.linalg.eigh(precision)
        positive = values > RANK * values[-1]
        vectors, roots = vectors[:, positive], np.sqrt(values[positive])
        root, seen = (vectors * roots) @ vectors.T, vectors @ (vectors.T @ pull / roots)
        found.append(Information(root, seen, covariance, float(noise.variances[group].mean())))
    return found


def _normal_equations(table: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Precision [B * C, B * C] and pull [B * C] of the means; all samples of a pattern together."""
    budgets, samples, candidates = table.shape
    size = budgets * candidates
    score = np.moveaxis(table, 1, 0).reshape(samples, size)
    patterns, pattern, times = np.unique(~np.isnan(score), axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros((len(patterns), size))
    np.add.at(sums, pattern.ravel(), np.nan_to_num(score))
    precision, pull = np.zeros((size, size)), np.zeros(size)
    for begun in range(0, len(patterns), AT_ONCE):
        part = slice(begun, begun + AT_ONCE)
        contrast = _contrast_precisions(patterns[part], covariance, budgets)
        precision += np.tensordot(times[part].astype(float), contrast, 1)
        pull += np.einsum("uij,uj->i", contrast, sums[part])
    return precision, pull


def _contrast_precisions(patterns: NDArray[np.bool_], covariance: Floats, budgets: int) -> Floats:
    """[U, B * C, B * C]: what one sample of each pattern tells of the means when its levels are free; 0 elsewhere."""
    known = patterns.astype(float)
    size = patterns.shape[1]
    both = known[:, :, None] * known[:, None]
    weight = np.linalg.inv(np.where(both > 0, covariance, np.eye(size))) * both
    at_budget = np.kron(np.eye(budgets), np.ones((size // budgets, 1)))
    # [U, B * C, B]: how much each cell tells of its sample's levels.
    of_level = weight @ at_budget
    levels = np.linalg.pinv(at_budget.T @ of_level, hermitian=True)
    precision: Floats = weight - of_level @ levels @ of_level.transpose(0, 2, 1)
    return precision
