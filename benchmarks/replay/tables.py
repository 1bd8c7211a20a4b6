"""Recorded tables of scores, draws from them, and tables that were changed to be hard.

Shapes: K classes, C candidates, N samples of a class, n of them drawn to calibrate on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.belief import Belief, believe, kernels, signal

Floats = NDArray[np.float64]
RECORDED = Path(__file__).parent.parent / "data" / "recorded_scores.npz"
BUDGETS = ("192", "128", "64")


@dataclass(frozen=True)
class Tables:
    """All classes at one budget: ``score`` and ``nll`` [N, C] and ``picture`` [N] of each class."""

    labels: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    score: tuple[Floats, ...]
    nll: tuple[Floats, ...]
    picture: tuple[NDArray[np.int64], ...]

    def columns(self, order: Sequence[Sequence[int]]) -> "Tables":
        """The same with the columns of each class in another order; the candidates stay where they are."""
        pairs = list(zip(self.score, self.nll, order, strict=True))
        return replace(self, score=tuple(s[:, o] for s, _, o in pairs), nll=tuple(n[:, o] for _, n, o in pairs))


@dataclass(frozen=True)
class Draw:
    """What there is to calibrate on, and what the choice is judged by.

    Attributes:
        labels: of the K classes.
        candidates: C; the first is the default.
        score: of each class, [n, C].
        nll: likewise, in nats.
        truth: [K, C] mean scores on the samples that were not drawn.
    """

    labels: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    score: tuple[Floats, ...]
    nll: tuple[Floats, ...]
    truth: Floats

    @property
    def signals(self) -> list[Floats]:
        """What the searches go by, [n, C] of each class."""
        return [signal(score, nll) for score, nll in zip(self.score, self.nll, strict=True)]

    @property
    def belief(self) -> Belief:
        """The product's posterior when everything is measured."""
        return believe(self.signals, covariances(self.candidates))

    def worth(self, choice: Sequence[int]) -> Floats:
        """[K] true scores of a candidate for each class."""
        worth: Floats = self.truth[np.arange(len(self.truth)), np.asarray(choice, int)]
        return worth


@lru_cache
def covariances(candidates: tuple[Candidate, ...]) -> Floats:
    """[G, C, C] for the product's belief."""
    return kernels(candidates)


@lru_cache
def recorded(budget: str, path: Path = RECORDED) -> Tables:
    """The recorded tables of one budget."""
    with np.load(path) as stored:
        labels = tuple(
            name.split("/")[1] for name in stored.files if name.startswith(f"{budget}/") and name.endswith("/score")
        )
        names = [str(name).split("/")[0] for name in stored["name"]]
        rows = zip(names, stored["alpha"].astype(float), stored["rho"].astype(float), strict=True)
        return Tables(
            labels,
            tuple(Candidate(name, tuple(alpha.tolist()), float(rho)) for name, alpha, rho in rows),
            tuple(stored[f"{budget}/{label}/score"].astype(float) for label in labels),
            tuple(stored[f"{budget}/{label}/nll"].astype(float) for label in labels),
            tuple(
                stored[f"picture/{label}"][: len(stored[f"{budget}/{label}/score"])].astype(np.int64)
                for label in labels
            ),
        )


@lru_cache
def budgets_of(path: Path) -> tuple[str, ...]:
    """The budgets that were recorded, the largest first."""
    with np.load(path) as stored:
        return tuple(budget for budget in BUDGETS if any(name.startswith(f"{budget}/") for name in stored.files))


JUDGES = 30
"""Samples of each class that a draw leaves to judge by, at least."""


def fitting(path: Path, sizes: Sequence[int]) -> list[int]:
    """Those of the sizes that leave enough to judge by."""
    fewest = min(len(score) for budget in budgets_of(path) for score in recorded(budget, path).score)
    return [n for n in sizes if fewest - n >= JUDGES]


def drawn(tables: Tables, sizes: int | Sequence[int], seed: int) -> Draw:
    """Samples to calibrate on, all of whose pictures are kept out of the samples to judge by, in every class.

    The same seed draws the same pictures at every budget.
    """
    sizes = [sizes] * len(tables.labels) if isinstance(sizes, int) else sizes
    pictures = np.unique(np.concatenate(tables.picture))
    place = np.random.default_rng([11, seed]).permutation(len(pictures))
    of_class = [place[np.searchsorted(pictures, picture)] for picture in tables.picture]
    orders = [np.argsort(number, kind="stable") for number in of_class]
    last = max(number[order[size - 1]] for number, order, size in zip(of_class, orders, sizes, strict=True))
    rest = [number > last for number in of_class]
    mine = [order[:size] for order, size in zip(orders, sizes, strict=True)]
    return Draw(
        tables.labels,
        tables.candidates,
        tuple(score[rows] for score, rows in zip(tables.score, mine, strict=True)),
        tuple(nll[rows] for nll, rows in zip(tables.nll, mine, strict=True)),
        np.array([score[rows].mean(0) for score, rows in zip(tables.score, rest, strict=True)]),
    )


Change = Callable[[Tables], Tables]


def _means(tables: Tables) -> Floats:
    return np.array([score.mean(0) for score in tables.score])


def best_default(tables: Tables) -> Tables:
    """The candidate that is best over all classes is called the default, and keeps its place in the grid."""
    first = int(_means(tables).mean(0).argmax())
    order = [first, *(c for c in range(len(tables.candidates)) if c != first)]
    return replace(tables.columns([order] * len(tables.labels)), candidates=tuple(tables.candidates[c] for c in order))


def misplaced_default(tables: Tables) -> Tables:
    """Each class's best column changes places with the default's, far from where its neighbours are."""
    orders = []
    for mean in _means(tables):
        order = list(range(len(mean)))
        best = int(mean.argmax())
        order[0], order[best] = best, 0
        orders.append(order)
    return tables.columns(orders)


def turned(tables: Tables, label: str) -> Tables:
    """One class against all others: its best column changes places with its worst, and so on."""
    orders = []
    for name, mean in zip(tables.labels, _means(tables), strict=True):
        order = np.arange(len(mean))
        if name == label:
            ranked = np.argsort(mean, kind="stable")
            order[ranked] = ranked[::-1]
        orders.append(order.tolist())
    return tables.columns(orders)


def at_ceiling(tables: Tables, labels: Sequence[str]) -> Tables:
    """Some classes where every candidate is right everywhere, and sure of it."""
    score, nll = list(tables.score), list(tables.nll)
    for k, label in enumerate(tables.labels):
        if label in labels:
            score[k], nll[k] = np.ones_like(score[k]), np.zeros_like(nll[k])
    return replace(tables, score=tuple(score), nll=tuple(nll))


def useless_mixtures(tables: Tables, harm: float = 0.05) -> Tables:
    """Every mixture scores as the model's own layer does at the same rho, but is wrong on a share more of the samples.

    The samples are others for each mixture and class. An answer made wrong has the likelihood of a wrong one.
    """
    own = {c.rho: i for i, c in enumerate(tables.candidates) if c.alpha == tables.candidates[0].alpha}
    order = [own[candidate.rho] for candidate in tables.candidates]
    plain = tables.columns([order] * len(tables.labels))
    mixtures = list(dict.fromkeys(candidate.alpha for candidate in tables.candidates))
    which = np.array([mixtures.index(candidate.alpha) for candidate in tables.candidates])
    generator = np.random.default_rng(5)
    score, nll = [], []
    for right, unlikely in zip(plain.score, plain.nll, strict=True):
        wrong = generator.random((len(right), len(mixtures))) < harm
        wrong[:, 0] = False
        harmed = wrong[:, which]
        score.append(np.where(harmed, 0.0, right))
        nll.append(np.where(harmed, np.maximum(unlikely, 2.0), unlikely))
    return replace(plain, score=tuple(score), nll=tuple(nll))
