"""A two-way random-effects model over classes and candidates, in information form, averaged over its variances.

Shapes: K classes, C candidates, G kernels, V variances.

    z_k = S_k f_k + e_k,    f_k = shared + own_k,    shared ~ N(0, v_s kernel),    own_k ~ N(0, v_o kernel)

with standard normal ``e_k``. The kernel and both variances are not known. They are averaged over a grid, each point
weighted by its marginal likelihood: that is what decides how much a class believes its neighbours and other classes.

Given ``shared`` the classes are independent, so a point of the grid costs K eigendecompositions of size C and no more:
with one of ``S_k kernel S_k`` all variances of the own effects are served, with one of the information about ``shared``
all of its variances.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.search.evidence import Floats, Information

VARIANCES = np.geomspace(1e-3, 1.0, 5)
"""Variances of the effects, in units of the mean noise variance of one score. None is zero, so that neither neighbours
nor other classes are ever believed blindly. Our choice."""
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


@dataclass(frozen=True)
class _Point:
    """One point of the grid.

    Attributes:
        smoothed: of its kernel.
        own: variance of the own effects.
        shared_mean: [C], of the posterior of the shared effect.
        shared_root: [C, C], whose product with its transpose is its covariance.
    """

    smoothed: _Smoothed
    own: float
    shared_mean: Floats
    shared_root: Floats

    def mean(self, group: int, of: slice) -> Floats:
        """[m] means of the candidates ``of`` of a class."""
        pull, kept = self._gain(group, of)
        mean: Floats = kept @ self.shared_mean + pull @ self.smoothed.seen[group]
        return mean

    def covariance(self, group: int, of: slice) -> Floats:
        """[m, m] covariance of the means of the candidates ``of`` of a class."""
        kept = self._gain(group, of)[1]
        spread = kept @ self.shared_root
        covariance: Floats = self.own * kept @ self.smoothed.kernel[:, of] + spread @ spread.T
        return covariance

    def _gain(self, group: int, of: slice) -> tuple[Floats, Floats]:
        """[m, C] each: what is taken from what was seen, along the axes, and what from the shared effect."""
        smoothed = self.smoothed
        axes = smoothed.axes[group]
        pull = self.own * smoothed.kernel[of] @ axes / (1 + self.own * smoothed.gains[group])
        return pull, np.eye(len(axes))[of] - pull @ axes.T


class Hierarchy:
    """The posterior of the classes' means.

    Args:
        information: of each class.
        kernels: [G, C, C].

    Attributes:
        weights: [points], of the points of the grid that count; they sum to 1.
    """

    def __init__(self, information: Sequence[Information], kernels: Floats):
        roots = np.array([i.root for i in information])
        seen = np.array([i.seen for i in information])
        scale = float(np.mean([i.noise for i in information]))
        # One class cannot tell what is shared from what is its own.
        shared = scale * VARIANCES if len(information) > 1 else np.zeros(1)
        logs, points = [], []
        for kernel in kernels:
            smoothed = _smoothed(kernel, roots, seen)
            for own in scale * VARIANCES:
                for log, point in _points(smoothed, float(own), shared):
                    logs.append(log)
                    points.append(point)
        weights = np.exp(np.array(logs) - max(logs))
        weights /= weights.sum()
        kept = np.flatnonzero(weights > NEGLIGIBLE)
        self._points = [points[number] for number in kept]
        self.weights: Floats = weights[kept] / weights[kept].sum()

    def mean(self, group: int, of: slice) -> Floats:
        """[m] means of the candidates ``of`` of a class."""
        mean: Floats = self.weights @ np.array([point.mean(group, of) for point in self._points])
        return mean

    def moments(self, point: int, group: int, of: slice) -> tuple[Floats, Floats]:
        """Mean [m] and covariance [m, m] of the candidates ``of`` of a class, at one point of the grid."""
        return self._points[point].mean(group, of), self._points[point].covariance(group, of)


def _smoothed(kernel: Floats, roots: Floats, seen: Floats) -> _Smoothed:
    gains, vectors = np.linalg.eigh(roots @ kernel @ roots)
    along = np.einsum("kij,ki->kj", vectors, seen)
    return _Smoothed(kernel, np.maximum(gains, 0), roots @ vectors, along)


def _points(smoothed: _Smoothed, own: float, variances: Floats) -> Iterator[tuple[float, _Point]]:
    """Points of all variances of the shared effect, with their log marginal likelihoods, up to a common number."""
    shrunk = 1 / (1 + own * smoothed.gains)
    precision = np.einsum("kij,kj,klj->il", smoothed.axes, shrunk, smoothed.axes, optimize=True)
    pull = np.einsum("kij,kj->i", smoothed.axes, shrunk * smoothed.seen)
    values, vectors = np.linalg.eigh(smoothed.kernel)
    root = vectors * np.sqrt(np.maximum(values, 0))
    gains, turned = np.linalg.eigh(root.T @ precision @ root)
    axes, gains = root @ turned, np.maximum(gains, 0)
    along = axes.T @ pull
    apart = 0.5 * (np.log(shrunk) - shrunk * smoothed.seen**2).sum()
    for variance in variances:
        posterior = variance / (1 + variance * gains)
        log = apart + 0.5 * (posterior * along**2 - np.log1p(variance * gains)).sum()
        yield float(log), _Point(smoothed, own, axes @ (posterior * along), axes * np.sqrt(posterior))
