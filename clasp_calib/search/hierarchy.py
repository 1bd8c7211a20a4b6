"""A two-way random-effects model over classes and candidates, in information form, averaged over its variances.

Shapes: K classes, C candidates, G kernels, V pairs of a slope and a variance of own effects.

    z_k = S_k f_k + e_k,    f_k = a_k shared + own_k,    shared ~ N(0, v kernel),    own_k ~ N(0, v_k kernel)

with standard normal ``e_k``. The kernel, the slopes and the variances are not known. They are averaged over a grid,
each point weighted by its marginal likelihood: that is what decides how much a class believes its neighbours and other
classes. Every class has a variance of its own, so that one that goes its own way is not held back by many that do not,
and a slope of its own [1], so that one in which the same candidates differ more, or less, is not taken for such a one.
All combinations would be too many: a class's pairs are weighted given what the others say on average over theirs.

Given ``shared`` the classes are independent. So nothing is larger than C by C, and one eigendecomposition of ``S_k
kernel S_k`` serves all variances of a class.

[1] Finlay and Wilkinson, *The analysis of adaptation in a plant-breeding programme*, 1963.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.search.information import Information
from clasp_calib.search.noise import Floats

SHARED, OWN = np.geomspace(1e-3, 1.0, 3), np.geomspace(1e-3, 10.0, 5)
"""Variances of the shared effect, in units of the classes' mean noise variance, and of a class's own, in units of its
noise variance. None is zero, so that neither neighbours nor other classes are ever believed blindly. Our choice."""
SLOPES = np.array([0.4, 1.0, 2.5])
"""Of a class's effects on the shared one. A class where nearly all answers are right has little to show of what sets
candidates apart. Our choice."""
SWEEPS = 2
"""Times that every class's pairs are weighted anew, given those of the others."""
NEGLIGIBLE = 1e-3
"""Points of the grid with less weight than this are left out."""


@dataclass(frozen=True)
class _Smoothed:
    """The classes' information along the axes of one kernel.

    Attributes:
        kernel: [C, C].
        gains: [K, C] eigenvalues of ``S_k kernel S_k``.
        axes: [K, C, C], ``S_k`` times its eigenvectors (columns).
        seen: [K, C], ``z_k`` along them.
    """

    kernel: Floats
    gains: Floats
    axes: Floats
    seen: Floats

    def gain(self, group: int, own: float, of: slice) -> tuple[Floats, Floats]:
        """[m, C] each: what the candidates ``of`` take from what was seen, and from the shared effect."""
        axes = self.axes[group]
        pull = own * self.kernel[of] @ axes / (1 + own * self.gains[group])
        return pull, np.eye(len(axes))[of] - pull @ axes.T


@dataclass(frozen=True)
class _Point:
    """A kernel and a variance of the shared effect.

    Attributes:
        smoothed: of the kernel.
        log: logarithm of its marginal likelihood, up to a number that all points share.
        weights: [K, V] of the pairs of each class; each row sums to 1.
        mean: [C], of the posterior of the shared effect.
        root: [C, C], whose product with its transpose is its covariance.
    """

    smoothed: _Smoothed
    log: float
    weights: Floats
    mean: Floats
    root: Floats


class Hierarchy:
    """The posterior of the classes' means.

    Args:
        information: of each class.
        kernels: [G, C, C].
    """

    def __init__(self, information: Sequence[Information], kernels: Floats):
        roots = np.array([i.root for i in information])
        seen = np.array([i.seen for i in information])
        variance = np.array([i.variance for i in information])
        self._own = variance[:, None] * OWN
        # One class cannot tell what is shared from what is its own.
        shared = variance.mean() * SHARED if len(information) > 1 else np.zeros(1)
        self._points: list[_Point] = []
        for kernel in kernels:
            self._points += _points(_smoothed(kernel, roots, seen), self._own, shared)
        logs = np.array([point.log for point in self._points])
        self._likelihoods = np.exp(logs - logs.max())

    def weights(self, group: int) -> Floats:
        """[points] of the grid of a class; they sum to 1."""
        of_class = np.array([point.weights[group] for point in self._points])
        weights = (self._likelihoods[:, None] * of_class).ravel()
        weights[weights < NEGLIGIBLE * weights.sum()] = 0
        normed: Floats = weights / weights.sum()
        return normed

    def mean(self, group: int, of: slice) -> Floats:
        """[m] means of the candidates ``of`` of a class."""
        weights = self.weights(group)
        points = np.flatnonzero(weights)
        mean: Floats = weights[points] @ np.array([self._mean(int(point), group, of) for point in points])
        return mean

    def moments(self, point: int, group: int, of: slice) -> tuple[Floats, Floats]:
        """Mean [m] and covariance [m, m] of the candidates ``of`` of a class, at one point of its grid."""
        at, slope, own = self._at(point, group)
        kept = at.smoothed.gain(group, own, of)[1]
        spread = slope * kept @ at.root
        covariance = own * kept @ at.smoothed.kernel[:, of] + spread @ spread.T
        return self._mean(point, group, of), covariance

    def _mean(self, point: int, group: int, of: slice) -> Floats:
        at, slope, own = self._at(point, group)
        pull, kept = at.smoothed.gain(group, own, of)
        mean: Floats = slope * kept @ at.mean + pull @ at.smoothed.seen[group]
        return mean

    def _at(self, point: int, group: int) -> tuple[_Point, float, float]:
        number, pair = divmod(point, len(SLOPES) * len(OWN))
        slope, variance = divmod(pair, len(OWN))
        return self._points[number], float(SLOPES[slope]), float(self._own[group, variance])


def _smoothed(kernel: Floats, roots: Floats, seen: Floats) -> _Smoothed:
    gains, vectors = np.linalg.eigh(roots @ kernel @ roots)
    along = np.einsum("kij,ki->kj", vectors, seen)
    return _Smoothed(kernel, np.maximum(gains, 0), roots @ vectors, along)


def _points(smoothed: _Smoothed, own: Floats, variances: Floats) -> Iterator[_Point]:
    """Points of all variances of the shared effect."""
    values, vectors = np.linalg.eigh(smoothed.kernel)
    root = vectors * np.sqrt(np.maximum(values, 0))
    shrunk = 1 / (1 + own[..., None] * smoothed.gains[:, None])
    # [K, V, C, C] and [K, V, C]: what each class says of the shared effect over its root, if slope and variance are so.
    axes = root.T @ smoothed.axes
    steep = SLOPES.repeat(own.shape[1])
    precision = (axes[:, None] * shrunk[:, :, None]) @ axes.transpose(0, 2, 1)[:, None]
    precision = np.tile(precision, (1, len(SLOPES), 1, 1)) * (steep**2)[:, None, None]
    pull = np.einsum("kij,kvj->kvi", axes, shrunk * smoothed.seen[:, None])
    pull = np.tile(pull, (1, len(SLOPES), 1)) * steep[:, None]
    apart = 0.5 * (np.log(shrunk) - shrunk * smoothed.seen[:, None] ** 2).sum(-1)
    apart = np.tile(apart, (1, len(SLOPES)))

    def fits(of_precision: Floats, of_pull: Floats, variance: float) -> Floats:
        """Log marginal likelihoods [...] of what all classes together say of the shared effect."""
        # One factor of the matrix bordered by the pull's direction gives the determinant and, in its corner, the form.
        size = len(root)
        length = np.linalg.norm(of_pull, axis=-1)
        bordered = np.empty((*of_pull.shape[:-1], size + 1, size + 1))
        bordered[..., :size, :size] = np.eye(size) + variance * of_precision
        bordered[..., size, :size] = of_pull / np.where(length > 0, length, 1)[..., None]
        bordered[..., size, size] = 2.0
        diagonal = np.linalg.cholesky(bordered).diagonal(0, -2, -1)
        form = length**2 * (2 - diagonal[..., -1] ** 2)
        logs: Floats = 0.5 * variance * form - np.log(diagonal[..., :-1]).sum(-1)
        return logs

    for variance in variances:
        # Begun with one variance for all classes.
        alike = apart.sum(0) + fits(precision.sum(0), pull.sum(0), variance)
        weights = np.tile(np.exp(alike - alike.max()), (len(own), 1))
        for _ in range(SWEEPS):
            weights = weights / weights.sum(1, keepdims=True)
            expected = np.einsum("kv,kvij->kij", weights, precision), np.einsum("kv,kvi->ki", weights, pull)
            total = expected[0].sum(0), expected[1].sum(0)
            rest = (total[0] - expected[0])[:, None], (total[1] - expected[1])[:, None]
            logs = apart + fits(rest[0] + precision, rest[1] + pull, variance)
            highest = logs.max(1, keepdims=True)
            weights = np.exp(logs - highest)
        together = float(fits(*total, float(variance)))
        values, vectors = np.linalg.eigh(np.eye(len(root)) + variance * total[0])
        spread = vectors * np.sqrt(variance / values)
        yield _Point(
            smoothed=smoothed,
            log=together + float((highest[:, 0] + np.log(weights.sum(1)) - together).sum()),
            weights=weights / weights.sum(1, keepdims=True),
            mean=root @ spread @ (spread.T @ total[1]),
            root=root @ spread,
        )
