"""What a plan tells of a search besides its numbers of evaluations: what is in the space, and how long one takes."""

import time
from collections.abc import Sequence

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.common.samples import Sample
from clasp_calib.common.selector_choice import CLASP
from clasp_calib.search.space import SearchSpace

TIMED, SHOWN = 3, 12
"""Samples that a plan takes the time of, and prototypes that it lists."""


def contents(space: SearchSpace, rated: bool, first: SearchSpace | None = None) -> dict[str, object]:
    """What a space tries, by name.

    Args:
        space: of the search.
        rated: tokens have a relevance, so that ratios mean something.
        first: that of a first round, which leaves as many other selectors as the search has.
    """
    names = [prototype.name for prototype in space.tried]
    told: dict[str, object] = {
        "prototypes": names if len(names) <= SHOWN else [*names[:SHOWN], f"and {len(names) - SHOWN} more"]
    }
    told |= {"rho": list(space.rhos)} if rated else {}
    told |= {"relevances": list(space.relevances)} if space.relevances else {}
    others: object = list(map(str, space.others))
    if first:
        entered = [selector.name for selector in first.selectors if selector.name != CLASP]
        others = f"{len(space.selectors) - 1} of {', '.join(entered)}"
    return told | ({"other selectors": others} if others else {})


def seconds_of(
    evaluator: Evaluator, samples: Sequence[Sample], candidates: Sequence[Candidate], pruning: Pruning
) -> float:
    """Of one evaluation: the best of a few samples, all candidates at once, as a search begins."""
    took = []
    for sample in samples[:TIMED]:
        begun = time.perf_counter()
        evaluator.scores(sample, candidates, pruning)
        took.append((time.perf_counter() - begun) / len(candidates))
    return min(took)
