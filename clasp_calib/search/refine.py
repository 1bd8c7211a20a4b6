"""Coordinate search around a class's leader, off the grid of the space.

The paper found that tuning searched weights further lowers most scores (its Table 19). So what comes of it is not taken
for its own mean, which it was tuned on, but judged by the belief in all candidates, which shrinks it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.measuring import Measuring
from clasp_calib.search.strategies.strategy import Ask

STEPS = ((0.2, 0.1), (0.1, 0.05))
"""Of a layer's weight and of rho, round by round. Our choice: the lattice of a space is hardly finer than the first."""
REFINED = "refined"


def refined_from(measuring: Measuring, label: str, start: int) -> bool:
    """Coordinate search from a candidate of a class; whether there was anything to try.

    In each round every layer's weight, and rho where it means something, are moved up and down, one at a time; the best
    neighbour is the next start if its mean is higher. All are measured on the samples that the start was measured on.

    Args:
        measuring: of the budget; the candidates tried are added to the class.
        label: of the class.
        start: where to begin.
    """
    of = measuring.classes[label]
    samples = np.flatnonzero(of.asked[:, start])
    layers = sorted({layer for c in of.candidates for layer, weight in enumerate(c.alpha) if weight})
    best, total, space = start, float(of.values[samples, start, 0].sum()), len(of.candidates)
    if not len(samples):
        return False
    for round_, (weight, step) in enumerate(STEPS, start=1):
        rho = step if measuring.rated and not of.candidates[best].selector else None
        known = set(of.candidates)
        tried = []
        for n, candidate in enumerate(_neighbours(of.candidates[best], layers, weight, rho)):
            if candidate not in known:
                known.add(candidate)
                tried.append(of.add(replace(candidate, prototype=f"{REFINED} {round_}.{n}")))
        if tried:
            (answer,) = measuring.measure([Ask(label, samples.tolist(), tried)])
            totals = answer.score.sum(0)
            if totals.max() > total:
                best, total = tried[int(totals.argmax())], float(totals.max())
    return len(of.candidates) > space


def most(layers: int, rated: bool = True) -> int:
    """The most candidates that are tried; without a relevance, by which tokens are ``rated``, rho stays as it is."""
    return len(STEPS) * 2 * (layers + rated)


def _neighbours(candidate: Candidate, layers: Sequence[int], weight: float, rho: float | None) -> Iterator[Candidate]:
    """Two for each coordinate, as far as the simplex and [0, 1] go; ``None`` leaves rho alone."""
    for layer in layers:
        for step in (weight, -weight):
            new = round(min(1.0, max(0.0, candidate.alpha[layer] + step)), 6)
            rest = 1 - candidate.alpha[layer]
            # With all weight on one layer there is no mixture of the others to give to.
            if rest > 1e-9:
                scale = (1 - new) / rest
                alpha = tuple(new if at == layer else round(a * scale, 6) for at, a in enumerate(candidate.alpha))
                yield replace(candidate, prototype=REFINED, alpha=tuple(a / sum(alpha) for a in alpha))
    for step in () if rho is None else (rho, -rho):
        yield replace(candidate, prototype=REFINED, rho=round(min(1.0, max(0.0, candidate.rho + step)), 6))
