"""What a race's scores say of the candidates' true means: an empirical-Bayes posterior over paired differences.

Shapes: C candidates, n samples, m live candidates, o outputs (the score and, where the answer's likelihood is known,
its `companion`), G kernels, V variances, A angles, D draws.

The model: candidate c has true means ``f_c`` [o]. A sample adds to them what all candidates share, and noise whose
covariance is ``M`` [o, o] between outputs times ``R`` [m, m] between candidates. What candidates share is projected
out of every block, so that only differences count. A priori ``f`` is a Gaussian process over the candidates, with
covariance ``B`` [o, o] between outputs times one of G kernels between candidates (the intrinsic coregionalization
model, Bonilla, Chai and Williams 2008). ``M`` and ``R`` are estimated from the deviations. ``B`` and the kernel are
not fixed but averaged over a grid, each by how well it predicts what was measured: that is what decides whether
neighbours and the companion are believed.

Two identities make the grid cheap. Outputs whitened by ``M`` and turned by an angle are independent, so that a grid
over ``B`` is one over an angle and a variance for each output. And with ``S`` the root of the precision, one
eigendecomposition of ``S K S`` serves all variances of a kernel ``K``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VARIANCES = np.geomspace(3e-4, 3.0, 12)
"""Prior variances of the means, in units of the noise variance of one sample. Our choice: the least stands for
differences of about a third of a point that nothing else foretells, so that neither neighbours nor the companion are
ever believed blindly; without it races were surer than right (92 % of those that claimed 95 %)."""
ANGLES = np.arange(30) * (np.pi / 60)
"""Turns of the whitened outputs; a right angle only exchanges them."""
PRIOR_SAMPLES = 10.0
"""A candidate's noise variance is shrunk towards the average as by so many samples. Our choice."""
RHO_LENGTH, MIXTURE_LENGTH, SMOOTH_SHARES = 0.4, 0.7, (0.6, 0.95)
"""How far neighbours reach, in rho and in total variation of the mixture, and how much of the variance is smooth.
Our choice, tuned on simulated races; what the data contradict has no weight."""


def log_odds(nll: Floats) -> Floats:
    """Log-odds of an answer, ``log(p / (1 - p))``, from its negative log-likelihood in nats; always finite."""
    finite = np.clip(nll, 1e-12, 1e3)
    odds: Floats = -finite - np.log(-np.expm1(-finite))
    return odds


def companion(nll: Floats, scale: float) -> Floats:
    """A smooth stand-in for the 0/1 score, in [0, 1]: the logistic function of the answer's log-odds over ``scale``.

    Two candidates that are both right say nothing of each other by their scores, but much by their log-odds.
    """
    smooth: Floats = 0.5 + 0.5 * np.tanh(0.5 * log_odds(nll) / scale)
    return smooth


def odds_scale(nll: Floats) -> float:
    """Half the width of the central 68 % of the log-odds; 1 where they do not differ."""
    low, high = np.percentile(log_odds(nll), [16, 84])
    return float(high - low) / 2 or 1.0


def kernels(candidates: int, alpha: Floats | None = None, rho: Floats | None = None) -> Floats:
    """[G, C, C] covariances to choose from: unrelated candidates, and smooth ones over mixture and rho.

    Each is scaled so that differences from the candidates' mean have an average variance of 1.

    Args:
        candidates: C.
        alpha: [C, L] mixtures, or ``None`` for unrelated candidates alone.
        rho: [C], likewise.
    """
    eye = np.eye(candidates)
    found = [eye]
    if alpha is not None and rho is not None:
        # exp(-|.|_1) and the Gaussian of one variable are positive definite, and so are sums and products.
        near_mixture = np.exp(-0.5 * np.abs(alpha[:, None] - alpha[None]).sum(-1) / MIXTURE_LENGTH)
        near_rho = np.exp(-0.5 * ((rho[:, None] - rho[None]) / RHO_LENGTH) ** 2)
        smooth = (near_mixture + near_rho + near_mixture * near_rho) / 3
        found += [share * smooth + (1 - share) * eye for share in SMOOTH_SHARES]
    stacked = np.array(found)
    variance = (np.trace(stacked, axis1=1, axis2=2) - stacked.sum((1, 2)) / candidates) / max(1, candidates - 1)
    scaled: Floats = stacked / np.where(variance > 0, variance, 1)[:, None, None]
    return scaled


def noise(outputs: Floats) -> tuple[Floats, Floats]:
    """Covariance of one sample's noise: ``M`` [o, o] between outputs, ``R`` [m, m] between candidates.

    ``R`` is the covariance of the whitened deviations, shrunk towards its diagonal as by Schäfer and Strimmer (2005).

    Args:
        outputs: [o, n, m], n samples that all m candidates have seen.
    """
    o, n, m = outputs.shape
    deviations = outputs - outputs.mean(2, keepdims=True)
    deviations = deviations - deviations.mean(1, keepdims=True)
    between = np.einsum("anm,bnm->ab", deviations, deviations) / (max(1, n - 1) * max(1, m - 1))
    # One made-up disagreement, so that a few samples without any are not taken for certainty.
    between[0, 0] += 1 / n**2
    between += np.diag(1e-12 + 1e-6 * np.diag(between))
    white = np.einsum("ab,bnm->anm", _inverse_root(between), deviations).reshape(o * n, m)
    products = white.T @ white / (o * n)
    variance = np.diag(products) * m / max(1, m - 1)
    variance = (n * variance + PRIOR_SAMPLES) / (n + PRIOR_SAMPLES)
    uncertainty = ((white**2).T @ white**2 / (o * n) - products**2) / max(1, o * n - 1)
    off = ~np.eye(m, dtype=bool)
    explained = (products[off] ** 2).sum()
    shrinkage = np.clip(uncertainty[off].sum() / explained, 0, 1) if explained > 0 else 1.0
    return between, (1 - shrinkage) * products * off + np.diag(variance)


class Evidence:
    """Gathers blocks of a race, and draws from the posterior of the mean scores.

    Args:
        covariances: [G, C, C], as `kernels` gives them.
    """

    def __init__(self, covariances: Floats):
        self._kernels = covariances
        candidates = covariances.shape[1]
        self._live = list(range(candidates))
        self._history = np.empty((2, 0, candidates))
        self._precision = np.zeros((candidates, candidates))
        self._pull = np.zeros((2, candidates))
        self._between = np.eye(2)
        self._scale: float | None = None

    def add(self, score: Floats, nll: Floats | None, live: Sequence[int]) -> None:
        """Take in a block.

        Args:
            score: [n, m].
            nll: [n, m] in nats; from the first block without it on, the race goes by scores alone.
            live: m ascending candidates, all of whom were live in the block before.
        """
        self._history = self._history[..., np.isin(self._live, live)]
        self._live = list(live)
        if nll is None:
            self._history, self._pull = self._history[:1], self._pull[:1]
        block = score[None]
        if nll is not None and len(self._history) == 2:
            self._scale = self._scale or odds_scale(nll)
            block = np.stack([score, companion(nll, self._scale)])
        self._history = np.concatenate([self._history, block], 1)
        self._between, covariance = noise(self._history)
        inverse = np.linalg.inv(covariance)
        along = inverse.sum(1)
        # What a sample adds to all candidates is unknown: generalised least squares with a free level.
        weight = inverse - np.outer(along, along) / along.sum()
        self._precision[np.ix_(self._live, self._live)] += len(score) * weight
        self._pull[:, self._live] += block.sum(1) @ weight

    def draws(self, count: int, of: Sequence[int], generator: np.random.Generator) -> Floats:
        """[count, len(of)] draws of mean scores, up to a number that all candidates share.

        Draws come in pairs about the same centre, so that equal candidates have equal means over the draws.

        Args:
            count: how many; even.
            of: the candidates.
            generator: of the randomness.
        """
        values, vectors = np.linalg.eigh(self._precision)
        known = values > 1e-9 * values[-1]
        root = vectors[:, known] * np.sqrt(values[known])
        inverse_root = vectors[:, known] / np.sqrt(values[known])
        gains, bases = np.linalg.eigh(root.T @ self._kernels @ root)
        whiten = _inverse_root(self._between)
        # [G, o, C - 1]: what was measured in units of its own noise, along each kernel's axes.
        found = np.einsum("gij,oi->goj", bases, whiten @ self._pull @ inverse_root)
        gains = VARIANCES[:, None] * np.maximum(gains, 0)[:, None]
        shrinkage = gains / (1 + gains)
        directions = _directions(len(found[0]))
        fits = 0.5 * np.einsum("gvj,gxj,gyj->gvxy", shrinkage, found, found)
        evidence = np.einsum("aox,gvxy,aoy->aogv", directions, fits, directions) - 0.5 * np.log1p(gains).sum(-1)
        weights = evidence.reshape(*evidence.shape[:2], -1)
        highest = weights.max(-1, keepdims=True)
        weights = np.exp(weights - highest)
        of_angle = (highest[..., 0] + np.log(weights.sum(-1))).sum(-1)
        half = count // 2
        angles = _pick(np.exp(of_angle - of_angle.max()), generator.random(half))
        centre, apart = np.zeros((2, half, len(of)))
        for output in range(len(found[0])):
            uniform, chosen = generator.random(half), np.empty(half, int)
            for angle in np.unique(angles):
                here = angles == angle
                chosen[here] = _pick(weights[angle, output], uniform[here])
            kernel, variance = np.unravel_index(chosen, evidence.shape[2:])
            # How much this turned output counts for the score.
            share = directions[angles, output] @ np.linalg.inv(whiten)[0]
            for g in np.unique(kernel):
                here = kernel == g
                shrunk = shrinkage[g, variance[here]]
                axes = (inverse_root[list(of)] @ bases[g]).T
                mean = shrunk * (directions[angles[here], output] @ found[g])
                noisy = np.sqrt(shrunk) * generator.standard_normal(shrunk.shape)
                centre[here] += share[here, None] * (mean @ axes)
                apart[here] += share[here, None] * (noisy @ axes)
        return np.concatenate([centre + apart, centre - apart])


def _directions(outputs: int) -> Floats:
    """[A, o, o] turns."""
    if outputs == 1:
        return np.ones((1, 1, 1))
    cos, sin = np.cos(ANGLES), np.sin(ANGLES)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)


def _inverse_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    inverse: Floats = (vectors / np.sqrt(values)) @ vectors.T
    return inverse


def _pick(weights: Floats, uniform: Floats) -> NDArray[np.intp]:
    """Indices drawn in proportion to ``weights``, one for each of ``uniform`` in [0, 1)."""
    edges = np.cumsum(weights)
    return np.minimum(np.searchsorted(edges / edges[-1], uniform, side="right"), len(weights) - 1)
