"""A contest at equal decoder FLOPs, read between the budgets that were measured.

At equal tokens methods may differ in FLOPs: attention grows with the square of the tokens, so that one which keeps all
of them in the first layers pays more for the same mean.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.artifacts.manifest import CALIBRATED
from clasp_calib.calib.studies.comparison import Comparison
from clasp_calib.calib.studies.contest import MIXED, UNPRUNED, WHOLE, Contest, Entrant
from clasp_calib.calib.studies.evaluation import DEFAULT


@dataclass(frozen=True)
class EqualFlops:
    """What methods score at the decoder FLOPs of the calibration at a budget.

    Attributes:
        flops: of a prefill.
        comparison: interpolated scores of each sample.
        between: setting -> its budgets around these FLOPs; one where it was measured at them.
        outside: methods whose FLOPs are higher, or lower, at all budgets.
    """

    flops: float
    comparison: Comparison
    between: dict[str, tuple[str, ...]]
    outside: tuple[str, ...]


def at_equal_flops(contest: Contest, budget: str) -> EqualFlops:
    """The methods of a budget at the FLOPs that the calibration has there.

    The score of a sample is interpolated linearly between the two nearest budgets of a method. The largest is the
    unpruned model with the same tokens: the model's own, or those of the calibration's mixtures. Who has other mixtures
    has no such budget.

    Args:
        contest: a calibration among its entrants.
        budget: one of its budgets.
    """
    (calibrated,) = (e for e in contest.at(budget) if e.method == CALIBRATED)
    wanted = contest.flops(calibrated)
    scores: dict[str, NDArray[np.float64]] = {}
    between: dict[str, tuple[str, ...]] = {}
    outside = []
    for entrant in contest.at(budget):
        if entrant.unpruned:
            continue
        below, above = _around(contest, entrant, wanted)
        if below is None or above is None:
            outside.append(entrant.method)
            continue
        low, high = contest.flops(below), contest.flops(above)
        share = (wanted - low) / (high - low) if high > low else 0.0
        scores[entrant.method] = (1 - share) * contest.scores(below) + share * contest.scores(above)
        between[entrant.method] = tuple(dict.fromkeys(WHOLE if e.unpruned else e.budget for e in (below, above)))
    return EqualFlops(wanted, contest.compared(list(scores), list(scores.values())), between, tuple(outside))


def _around(contest: Contest, entrant: Entrant, wanted: float) -> tuple[Entrant | None, Entrant | None]:
    """The dearest of a method at no more than these FLOPs, and the cheapest at no less, as far as there are such."""
    others = [e for e in contest.entrants if e.method == entrant.method and e != entrant]
    own = [entrant, *others, *_unpruned(contest, entrant)]
    cheap = [e for e in own if contest.flops(e) <= wanted]
    dear = [e for e in own if contest.flops(e) >= wanted]
    return max(cheap, key=contest.flops, default=None), min(dear, key=contest.flops, default=None)


def _unpruned(contest: Contest, entrant: Entrant) -> list[Entrant]:
    """The unpruned model with the tokens that a method chooses from, if it is among the entrants."""
    at = {e.method: e for e in contest.at(entrant.budget)}
    mixture, own = (at[name].knobs.get("alpha") if name in at else None for name in (CALIBRATED, DEFAULT))
    alpha = entrant.knobs.get("alpha")
    if alpha in (None, own):
        return [at[UNPRUNED]]
    return [at[UNPRUNED + MIXED]] if alpha == mixture and UNPRUNED + MIXED in at else []
