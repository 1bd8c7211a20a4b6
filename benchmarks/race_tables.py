"""Score tables to replay races on: simulated ones with known means, and those recorded on the embedded model.

A simulated table has a latent margin for each candidate and sample, ``z = mu_c + sqrt(r) t_i + sqrt(1 - r) e_ci`` with
standard normal ``t`` and ``e``; the score is ``z > 0``. The leader's mean is 0.80, the others' lie below it by
exponential gaps. The answer's log-odds are three times the margin, blurred, and shifted for each candidate by a normal
offset worth half a point of score, so that the likelihood is informative but not to be trusted.

Candidates are a grid of mixtures and rhos. In unstructured tables the means are dealt out to them at random. In
structured ones the same means are dealt out along a smooth random surface, and half of the candidates' own noise is as
smooth as the surface, so that neighbours agree by luck too.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEADER = 0.80
RHOS = 10
STEEPNESS, BLUR, OFFSET = 3.0, 0.5, 0.005
RECORDED = Path(__file__).parent / "data" / "recorded_scores.npz"


@dataclass(frozen=True)
class Row:
    """One generator of tables: samples, candidates, mean gap, correlation of margins, smooth or not."""

    samples: int
    candidates: int
    spread: float
    correlation: float
    structured: bool

    @property
    def name(self) -> str:
        return "structured" if self.structured else "unstructured"


@dataclass(frozen=True)
class Structure:
    """What is known of the candidates before any is measured: ``alpha`` [C, L] over layers and ``rho`` [C]."""

    alpha: Floats
    rho: Floats


@dataclass(frozen=True)
class Table:
    """``score`` and ``nll`` [N, C]; ``mean`` [C] is what a winner is judged by."""

    score: Floats
    nll: Floats
    structure: Structure
    mean: Floats


def simulated(row: Row, seed: int) -> Table:
    rng = np.random.default_rng([seed, row.samples, row.candidates])
    count = row.candidates
    rho = np.tile(np.linspace(1 / RHOS, 1, RHOS), count // RHOS)
    alpha = rng.dirichlet(np.full(5, 0.7), count // RHOS).repeat(RHOS, 0)
    root = _smooth_root(alpha, rho)
    gaps = np.sort(rng.exponential(row.spread, count))
    means = np.clip(LEADER - (gaps - gaps[0]), 0.02, None)
    surface = root @ rng.standard_normal(count) if row.structured else rng.standard_normal(count)
    mean = np.empty(count)
    mean[np.argsort(-surface)] = means
    mu = np.array([NormalDist().inv_cdf(m) for m in mean])
    own = rng.standard_normal((row.samples, count))
    if row.structured:
        own = np.sqrt(0.5) * own + np.sqrt(0.5) * rng.standard_normal((row.samples, count)) @ root.T
    shared = rng.standard_normal((row.samples, 1))
    margin = mu + np.sqrt(row.correlation) * shared + np.sqrt(1 - row.correlation) * own
    offset = OFFSET / NormalDist().pdf(NormalDist().inv_cdf(LEADER)) * rng.standard_normal(count)
    blur = BLUR * np.sqrt(1 - row.correlation) * rng.standard_normal(margin.shape)
    nll = np.logaddexp(0, -STEEPNESS * (margin + offset + blur))
    return Table((margin > 0).astype(float), nll, Structure(alpha, rho), mean)


def recorded() -> dict[str, Table]:
    """The recorded tables by class, in the order in which they were recorded."""
    with np.load(RECORDED) as stored:
        structure = Structure(stored["alpha"].astype(float), stored["rho"].astype(float))
        labels = sorted(name.removesuffix("_score") for name in stored.files if name.endswith("_score"))
        tables = {}
        for label in labels:
            score = stored[f"{label}_score"].astype(float)
            tables[label] = Table(score, stored[f"{label}_nll"].astype(float), structure, score.mean(0))
        return tables


def shuffled(table: Table, seed: int) -> Table:
    order = np.random.default_rng(seed).permutation(len(table.score))
    return Table(table.score[order], table.nll[order], table.structure, table.mean)


def _smooth_root(alpha: Floats, rho: Floats) -> Floats:
    near = np.exp(-0.5 * np.abs(alpha[:, None] - alpha).sum(-1) / 0.7)
    smooth = near / 2 + near * np.exp(-0.5 * ((rho[:, None] - rho) / 0.4) ** 2) / 2
    return np.linalg.cholesky(smooth + 1e-6 * np.eye(len(rho)))
