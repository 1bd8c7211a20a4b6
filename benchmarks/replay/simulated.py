"""Simulated tables with known means.

A table has a latent margin for each candidate and sample, ``z = mu_c + sqrt(r) t_i + sqrt(1 - r) e_ci`` with standard
normal ``t`` and ``e``; the score is ``z > 0``. The leader's mean is 0.80, the others' lie below it by exponential gaps.
The answer's log-odds are three times the margin, blurred, and shifted for each candidate by a normal offset worth half
a point of score, so that the likelihood is informative but not to be trusted.

Candidates are a grid of mixtures and rhos. In unstructured tables the means are dealt out to them at random. In
structured ones the same means are dealt out along a smooth random surface, and half of the candidates' own noise is as
smooth as the surface, so that neighbours agree by luck too. Of several classes, ``alike`` is the share of the surface's
variance that they have in common.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate

from .tables import Draw, Floats

LEADER, LAYERS = 0.80, 5
STEEPNESS, BLUR, OFFSET = 3.0, 0.5, 0.005


@dataclass(frozen=True)
class Row:
    """One generator of tables."""

    samples: int
    candidates: int
    spread: float
    """Mean of the exponential gaps below the leader."""
    correlation: float
    """Of the candidates' margins on a sample."""
    structured: bool = True
    classes: int = 1
    alike: float = 0.0
    rhos: int = 10


KINDS = {
    "classes alike, flat top": Row(0, 24, 0.02, 0.7, classes=9, alike=0.8, rhos=4),
    "classes alike, steep": Row(0, 24, 0.05, 0.9, classes=9, alike=0.8, rhos=4),
    "unrelated classes and candidates": Row(0, 24, 0.05, 0.7, structured=False, classes=9, alike=0.0, rhos=4),
}
"""Nine classes; how many samples is up to the part."""


def simulated(row: Row, seed: int) -> Draw:
    """All of whose samples are there to calibrate on; the truth is known."""
    rng = np.random.default_rng([seed, row.samples, row.candidates, row.classes])
    rho = np.tile(np.linspace(1 / row.rhos, 1, row.rhos), row.candidates // row.rhos)
    alpha = rng.dirichlet(np.full(LAYERS, 0.7), row.candidates // row.rhos).repeat(row.rhos, 0)
    # The default comes first: the first mixture at rho 1.
    order = [row.rhos - 1, *(c for c in range(row.candidates) if c != row.rhos - 1)]
    rho, alpha = rho[order], alpha[order]
    root = _smooth_root(alpha, rho) if row.structured else np.eye(row.candidates)
    common = rng.standard_normal(row.candidates)
    found = [_table(row, root, common, rng) for _ in range(row.classes)]
    candidates = tuple(
        Candidate(f"mixture {c}", tuple(mixture), float(ratio))
        for c, (mixture, ratio) in enumerate(zip(alpha.tolist(), rho, strict=True))
    )
    return Draw(
        tuple(f"class {k}" for k in range(row.classes)),
        candidates,
        tuple(score for score, _, _ in found),
        tuple(nll for _, nll, _ in found),
        np.array([mean for _, _, mean in found]),
    )


def _table(row: Row, root: Floats, common: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Scores, likelihoods and means of one class."""
    shape = (row.samples, row.candidates)
    gaps = np.sort(rng.exponential(row.spread, row.candidates))
    means = np.clip(LEADER - (gaps - gaps[0]), 0.02, None)
    own = rng.standard_normal(row.candidates)
    surface = root @ (np.sqrt(row.alike) * common + np.sqrt(1 - row.alike) * own)
    mean = np.empty(row.candidates)
    mean[np.argsort(-surface)] = means
    mu = np.array([NormalDist().inv_cdf(m) for m in mean])
    noise = rng.standard_normal(shape)
    if row.structured:
        noise = np.sqrt(0.5) * noise + np.sqrt(0.5) * rng.standard_normal(shape) @ root.T
    shared = rng.standard_normal((row.samples, 1))
    margin = mu + np.sqrt(row.correlation) * shared + np.sqrt(1 - row.correlation) * noise
    offset = OFFSET / NormalDist().pdf(NormalDist().inv_cdf(LEADER)) * rng.standard_normal(row.candidates)
    blur = BLUR * np.sqrt(1 - row.correlation) * rng.standard_normal(shape)
    nll = np.logaddexp(0, -STEEPNESS * (margin + offset + blur))
    return (margin > 0).astype(float), nll, mean


def _smooth_root(alpha: Floats, rho: Floats) -> Floats:
    near = np.exp(-0.5 * np.abs(alpha[:, None] - alpha).sum(-1) / 0.7)
    smooth = near / 2 + near * np.exp(-0.5 * ((rho[:, None] - rho) / 0.4) ** 2) / 2
    root: Floats = np.linalg.cholesky(smooth + 1e-6 * np.eye(len(rho)))
    return root
