"""Coordinate search around a strategy's winner, off the grid of the space.

The paper found that tuning searched weights further lowers most scores (its Table 19), so what comes of it has to win
on samples that it was not tuned on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.measuring import Measuring

STEPS = ((0.2, 0.1), (0.1, 0.05))
"""Of a layer's weight and of rho, round by round. Our choice: the lattice of a space is hardly finer than the first."""
REFINED = "refined"


def refined_from(measuring: Measuring, start: int) -> int | None:
    """The best candidate that coordinate search on the calibration samples reaches; ``None`` if that is the start.

    In each round every layer's weight and rho are moved up and down, one at a time; the best neighbour is the next
    start if its mean is higher. All are measured on the samples that the start was measured on.

    Args:
        measuring: of the class; the candidates tried are added to it.
        start: where to begin; measured already.
    """
    samples = range(len(measuring.scores[start]))
    layers = sorted({layer for c in measuring.candidates for layer, weight in enumerate(c.alpha) if weight})
    best, total = start, sum(measuring.scores[start])
    for round_, (weight, rho) in enumerate(STEPS, start=1):
        known = {candidate: number for number, candidate in enumerate(measuring.candidates)}
        tried = []
        for n, candidate in enumerate(_neighbours(measuring.candidates[best], layers, weight, rho)):
            if candidate not in known:
                named = replace(candidate, prototype=f"{REFINED} {round_}.{n}")
                known[named] = measuring.add(named)
                tried.append(known[named])
        if tried:
            totals = measuring.observe(samples, tried).score.sum(0)
            place = int(totals.argmax())
            before = best
            if totals[place] > total:
                best, total = tried[place], float(totals[place])
            measuring.reject([c for c in {*tried, before} if c not in (best, start)])
    return None if best == start else best


def most(layers: int) -> int:
    """The most candidates that are tried."""
    return len(STEPS) * 2 * (layers + 1)


def _neighbours(candidate: Candidate, layers: Sequence[int], weight: float, rho: float) -> Iterator[Candidate]:
    """Two for each coordinate, as far as the simplex and [0, 1] go."""
    for layer in layers:
        for step in (weight, -weight):
            new = round(min(1.0, max(0.0, candidate.alpha[layer] + step)), 6)
            rest = 1 - candidate.alpha[layer]
            # With all weight on one layer there is no mixture of the others to give to.
            if rest > 1e-9:
                scale = (1 - new) / rest
                alpha = tuple(new if at == layer else round(a * scale, 6) for at, a in enumerate(candidate.alpha))
                yield replace(candidate, prototype=REFINED, alpha=tuple(a / sum(alpha) for a in alpha))
    for step in (rho, -rho):
        yield replace(candidate, prototype=REFINED, rho=round(min(1.0, max(0.0, candidate.rho + step)), 6))
