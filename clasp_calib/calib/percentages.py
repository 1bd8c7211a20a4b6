"""Budgets in tokens where pictures differ in their number of visual tokens: which percentages come near."""

import math
from collections.abc import Collection, Sequence
from typing import Any

from clasp_calib.cache.prepare import Broken, Preparer
from clasp_calib.cache.states import visual_tokens
from clasp_calib.common.errors import BudgetError
from clasp_calib.common.samples import Sample
from clasp_calib.common.token_range import TokenRange
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.schedule import Budget

COUNTED = 64
"""Pictures whose tokens are counted for an error. Our choice: enough for a mean, and seconds of preprocessing."""


def check_percentages(
    model: Any, processor: Any, samples: Sequence[Sample], budgets: Sequence[Budget], starts: tuple[int, ...]
) -> None:
    """Refuse budgets in tokens where pictures differ in their number.

    Args:
        model: what is to be calibrated.
        processor: the model's.
        samples: those to calibrate on.
        budgets: what was asked for.
        starts: the decoder layers at which stages begin.

    Raises:
        BudgetError: with the percentages that come nearest on these samples.
    """
    adapter = adapter_for(model)
    wanted = [budget for budget in budgets if budget.tokens is not None]
    if not wanted or picture_tokens(adapter) is not None:
        return
    pictures = list(dict.fromkeys(one.picture for sample in samples for one in sample.alone))
    prepare = Preparer.of(processor, adapter)
    prepared = map(prepare, pictures[:: -(-len(pictures) // COUNTED)])
    counts = [visual_tokens(model, one) for one in prepared if not isinstance(one, Broken)]
    if not counts:
        return  # Whoever needs the pictures says what is wrong with them.
    told = "; ".join(_nearest(budget, counts, 100 * starts[0] / adapter.decoder_layers) for budget in wanted)
    raise BudgetError(
        f"pictures of a {adapter.config.model_type} model differ in their number of visual tokens: "
        f"{TokenRange.of(counts)} in the {len(counts)} counted here. So a budget is a percentage of each picture's "
        f"own: {told}"
    )


def _nearest(budget: Budget, counts: Collection[int], floor: float) -> str:
    """The whole percentages beside a budget in tokens that are above ``floor``, and what they come to."""
    assert budget.tokens is not None
    exact = 100 * budget.tokens / (sum(counts) / len(counts))
    near = [p for p in (math.floor(exact), math.ceil(exact)) if floor < p < 100]
    if not near:
        least = f"--budget {math.floor(floor) + 1}% is the smallest" if exact < 50 else "--budget 99% is the largest"
        return f"{budget.name} tokens are {exact:.3g}% of them, and {least} that prunes"
    means = [f"--budget {p}% is {TokenRange.of([p * count / 100 for count in counts])}" for p in dict.fromkeys(near)]
    return f"for {budget.name} tokens in the mean {' and '.join(means)} a layer"
