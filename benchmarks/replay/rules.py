"""Rules that choose when everything is measured: what the product's decision is held against.

`former` is the rule of earlier versions, kept here as a reference: successive halving on a calibration part, three
finalists on a selection part, and the default unless the leader's gain is significant there at 5 %.
"""

from collections.abc import Callable, Sequence

import numpy as np

from .tables import Draw, Floats

DEFAULT, FINALISTS, LEVEL, FLIPS, SPLIT = 0, 3, 0.05, 2000, 20 / 36


def best(means: Floats) -> list[int]:
    """Of each row the largest; ties to the lower index."""
    return [int(choice) for choice in np.round(np.atleast_2d(means), 9).argmax(-1)]


def means_of(tables: Sequence[Floats]) -> Floats:
    return np.array([table.mean(0) for table in tables])


def additive(tables: Sequence[Floats]) -> Floats:
    """[K, C] James-Stein: class means shrunk to the mean over classes by the estimated share of interaction."""
    means = np.array([table.mean(0) - table.mean() for table in tables])
    (K, C), shared = means.shape, means.mean(0)
    noise = np.mean([(t - t.mean(1, keepdims=True)).var(0, ddof=1).mean() * C / (C - 1) / len(t) for t in tables])
    between = ((means - shared) ** 2).sum() / ((K - 1) * (C - 1))
    shrunk: Floats = shared + max(0.0, 1 - noise / max(between, 1e-12)) * (means - shared)
    return shrunk


def halved(score: Floats, first: int = 6) -> tuple[list[int], int]:
    """Successive halving: who reaches the last rung, best first, and how many evaluations it took."""
    alive, seen, keep, spent, end = list(range(score.shape[1])), 0, float(score.shape[1]), 0, first
    while True:
        last = end >= len(score) or keep <= 1
        end, keep = len(score) if last else end, max(1.0, keep / 2)
        spent += (end - seen) * len(alive)
        ranked = sorted(alive, key=lambda c: (-score[:end, c].sum(), c))
        if last:
            return ranked, spent
        alive, seen, end = sorted({*ranked[: max(1, round(keep))], DEFAULT}), end, 2 * end


def chance(gains: Floats, leader: int, generator: np.random.Generator) -> float:
    """Westfall and Young's paired permutation p-value of the leader's gain, with the maximum over the finalists."""
    gains = gains[gains.any(1)]
    signs = np.concatenate([np.ones((1, len(gains))), generator.choice([-1.0, 1.0], (FLIPS, len(gains)))])
    return float(((signs @ gains).max(1) >= gains[:, leader].sum() - 1e-9).mean())


def former(score: Floats, generator: np.random.Generator) -> int:
    """The choice of earlier versions for one class."""
    cut = max(2, round(SPLIT * len(score)))
    others = [c for c in halved(score[:cut])[0][:FINALISTS] if c != DEFAULT]
    if not others:
        return DEFAULT
    leader = max(others, key=lambda c: (score[:, c].mean(), -c))
    gains = score[cut:, others] - score[cut:, [DEFAULT]]
    return leader if chance(gains, others.index(leader), generator) <= LEVEL else DEFAULT


def formerly(draw: Draw, seed: int) -> list[int]:
    generator = np.random.default_rng([3, seed])
    return [former(score, generator) for score in draw.score]


def one_for_all(draw: Draw, seed: int) -> list[int]:
    return best(means_of(draw.signals).mean(0)) * len(draw.labels)


RULES: dict[str, Callable[[Draw, int], list[int]]] = {
    "default": lambda draw, seed: [DEFAULT] * len(draw.labels),
    "former rule": formerly,
    "best mean of the score": lambda draw, seed: best(means_of(draw.score)),
    "best mean of score and likelihood": lambda draw, seed: best(means_of(draw.signals)),
    "additive James-Stein": lambda draw, seed: best(additive(draw.signals)),
    "one for all classes": one_for_all,
}
"""By name: a candidate for each class. The seed is of what a rule draws."""
