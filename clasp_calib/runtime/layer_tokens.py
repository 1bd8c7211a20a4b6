"""What a schedule leaves of pictures: how many of their visual tokens each decoder layer works on."""

from collections.abc import Collection

from clasp_calib.common.token_range import TokenRange
from clasp_calib.runtime.schedule import AnySchedule


def layer_tokens(schedule: AnySchedule, tokens: int) -> tuple[int, ...]:
    """Visual tokens that each layer works on, of a row that brings ``tokens`` of them.

    Raises:
        BudgetError: they are so few that the budget is under their floor.
    """
    ladder, edges = (tokens, *schedule.counts_for(tokens)), (0, *schedule.starts, schedule.layers)
    return tuple(n for n, a, b in zip(ladder, edges, edges[1:], strict=False) for _ in range(b - a))


def tokens_a_layer(schedule: AnySchedule, pictures: Collection[int]) -> TokenRange:
    """Mean over the layers of `layer_tokens`, of pictures with so many visual tokens each."""
    means = {tokens: sum(layer_tokens(schedule, tokens)) / schedule.layers for tokens in set(pictures)}
    return TokenRange.of([means[tokens] for tokens in pictures])
