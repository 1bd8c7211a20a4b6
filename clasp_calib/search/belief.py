"""What all measured scores say of every candidate in every class: one posterior, shared between the classes.

Shapes: K tables (a class at a budget), C candidates, n samples of a table, D draws.

A class alone has too few samples to tell candidates apart, but what is good for one class is often good for others, and
for neighbouring mixtures and rhos. So the means are those of a two-way random-effects model, ``f[k, c] = shared[c] +
own[k, c]``, both smooth over the candidates, as far as the scores themselves support it. ``docs/design/decision.md``
says how a choice is made from it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.evidence import Floats, information
from clasp_calib.search.hierarchy import Hierarchy

RHO_LENGTH, MIXTURE_LENGTH, SEEDING_NEARNESS = 0.4, 0.7, 0.5
"""How far neighbours reach, in rho and in total variation of the mixture, and how near two ways of seeding are. Our
choice; what the data contradict has no weight."""
SMOOTH_SHARES = (0.0, 0.6, 0.95)
"""How much of the variance between candidates is smooth."""
DECIMALS = 9
"""Means are rounded so that sums in another order do not decide between equal candidates."""


@dataclass(frozen=True)
class Groups:
    """Which class and which budget each table is of; [K] each, any names."""

    classes: tuple[Hashable, ...]
    budgets: tuple[Hashable, ...]


def signal(score: Floats, nll: Floats | None) -> Floats:
    """What candidates are judged by: the mean of score and likelihood, in [0, 1] if the score is.

    The probability of the accepted answer still differs between two candidates that are both right, and so says more
    than right and wrong; alone it is a little biased.

    Args:
        score: [n, C], the metric; NaN where not measured.
        nll: [n, C], the answer's negative log-likelihood in nats, NaN or ``None`` where it is not known. A sample on
            which it lacks for a candidate that has a score is judged by its scores alone.
    """
    if nll is None:
        return score
    known = (np.isnan(score) | ~np.isnan(nll)).all(1, keepdims=True)
    judged: Floats = np.where(known, (score + np.exp(-nll)) / 2, score)
    return judged


def kernels(candidates: Sequence[Candidate]) -> Floats:
    """[G, C, C] covariances to choose from: unrelated candidates, and smooth ones over mixture, rho and seeding.

    Each is scaled so that differences from the candidates' mean have an average variance of 1.
    """
    alpha = np.array([c.alpha for c in candidates])
    rho = np.array([c.rho for c in candidates])
    seeding = np.array([getattr(c, "seeding", "") for c in candidates])
    # exp(-|.|_1) and the Gaussian of one variable are positive definite, and so are sums and products.
    near_mixture = np.exp(-0.5 * np.abs(alpha[:, None] - alpha[None]).sum(-1) / MIXTURE_LENGTH)
    near_rho = np.exp(-0.5 * ((rho[:, None] - rho[None]) / RHO_LENGTH) ** 2)
    near_seeding = np.where(seeding[:, None] == seeding[None], 1.0, SEEDING_NEARNESS)
    smooth = (near_mixture + near_rho + near_mixture * near_rho) / 3 * near_seeding
    count = len(candidates)
    stacked = np.array([share * smooth + (1 - share) * np.eye(count) for share in SMOOTH_SHARES])
    variance = (np.trace(stacked, axis1=1, axis2=2) - stacked.sum((1, 2)) / count) / max(1, count - 1)
    scaled: Floats = stacked / np.where(variance > 0, variance, 1)[:, None, None]
    return scaled


def believe(tables: Sequence[Floats], kernels: Floats, groups: Groups | None = None) -> "Belief":
    """The posterior of the candidates' means.

    Args:
        tables: K tables [n, C] of what candidates are judged by (`signal`), NaN where not measured; n may differ.
        kernels: [G, C, C] covariances, as `kernels` gives them.
        groups: which tables are of one class or one budget; ``None``: all of other classes and one budget.
    """
    found = information(tables)
    return Belief(Hierarchy(found, kernels), np.array([i.noise for i in found]))


class Belief:
    """The posterior of the candidates' means, up to a number that all candidates of a table share.

    Attributes:
        mean: [K, C] float64, rounded to 9 decimals.
        noise: [K], variance of one score about its sample's level and its candidate's mean.
        method: how it was reckoned, ``"pooled"`` or ``"james-stein"``.
    """

    def __init__(self, posterior: Hierarchy, noise: Floats):
        self._posterior = posterior
        self.mean: Floats = posterior.mean.round(DECIMALS)
        self.noise = noise
        self.method = "pooled"

    def leader(self, group: int) -> int:
        """The candidate of the highest mean in a table; of equal ones the lower number."""
        return int(self.mean[group].argmax())

    def draws(self, count: int, group: int, generator: np.random.Generator) -> Floats:
        """[count, C] draws of the means of one table; those of other tables are drawn apart.

        Draws come in pairs about the same centre, so that equal candidates have equal means over the draws.

        Args:
            count: how many; even.
            group: index of the table.
            generator: of the randomness.
        """
        half = count // 2
        centre, apart = np.empty((2, half, self.mean.shape[1]))
        times = generator.multinomial(half, self._posterior.weights)
        begun = 0
        for point in np.flatnonzero(times):
            mean, covariance = self._posterior.moments(int(point), group)
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0))
            part = slice(begun, begun := begun + int(times[point]))
            centre[part] = mean
            apart[part] = generator.standard_normal((int(times[point]), len(mean))) @ root.T
        return np.concatenate([centre + apart, centre - apart])
