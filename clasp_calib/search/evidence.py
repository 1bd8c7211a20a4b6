"""What score tables say of the candidates: least squares with a free level for each sample.

Shapes: n samples, C candidates. A table is [n, C], with NaN where a candidate was not measured on a sample.

A sample is easy or hard for all candidates alike. Its level is unknown and projected out, so that only differences
between candidates on one sample count (pairing), whichever of them were measured. A sample with one candidate says
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR_FREEDOM = 10.0
"""A table's noise variance is shrunk towards that of all tables as by so many degrees of freedom. Our choice: where
all candidates are right on all samples it would be zero, and nothing could be surer."""
LEAST_NOISE = 1e-4
"""Sum of squares of one made-up disagreement, so that tables without any are not taken for certainty. Our choice."""
RANK = 1e-9
"""Eigenvalues below this share of the largest stand for differences that were not measured."""


@dataclass(frozen=True)
class Information:
    """Of one table, in units of its noise.

    Attributes:
        root: [C, C], the symmetric root S of the precision of the candidates' means; differences that were not
            measured lie in its kernel.
        seen: [C], z, such that ``z = S f + e`` with standard normal ``e``, for the true means ``f``.
        noise: the variance of one score about its sample's level and its candidate's mean.
    """

    root: Floats
    seen: Floats
    noise: float


def information(tables: Sequence[Floats]) -> list[Information]:
    """What each table says; their noise variances are shrunk towards each other.

    Args:
        tables: [n, C] each, NaN where not measured; n may be 0 and differ.
    """
    pieces = [_least_squares(table) for table in tables]
    common = (sum(p.squares for p in pieces) + LEAST_NOISE) / max(1, sum(p.freedom for p in pieces))
    found = []
    for piece in pieces:
        noise = (piece.squares + PRIOR_FREEDOM * common) / (piece.freedom + PRIOR_FREEDOM)
        scale = np.sqrt(noise)
        found.append(Information(piece.root / scale, piece.seen / scale, noise))
    return found


@dataclass(frozen=True)
class _LeastSquares:
    """As `Information` if the noise variance were 1, and what is left over: a sum of squares and its freedom."""

    root: Floats
    seen: Floats
    squares: float
    freedom: int


def _least_squares(table: Floats) -> _LeastSquares:
    measured = ~np.isnan(table)
    rows = measured.sum(1) > 1
    known = measured[rows].astype(float)
    score = np.where(measured, table, 0.0)[rows]
    count = known.sum(1, keepdims=True)
    centred = known * (score - score.sum(1, keepdims=True) / count)
    precision = np.diag(known.sum(0)) - (known / count).T @ known
    values, vectors = np.linalg.eigh(precision)
    positive = values > RANK * max(values[-1], 1.0)
    vectors, roots = vectors[:, positive], np.sqrt(values[positive])
    along = (vectors.T @ centred.sum(0)) / roots
    return _LeastSquares(
        root=(vectors * roots) @ vectors.T,
        seen=vectors @ along,
        squares=max(0.0, float((centred**2).sum() - along @ along)),
        freedom=int(known.sum()) - len(known) - int(positive.sum()),
    )
