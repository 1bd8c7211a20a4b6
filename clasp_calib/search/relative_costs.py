"""What an evaluation of each candidate costs beside the others: some share a part of their forward."""

from collections.abc import Sequence

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.runtime.schedule import AnySchedule, RelativeSchedule, Schedule, ShareSchedule


def relative_costs(candidates: Sequence[Candidate], schedule: AnySchedule | None, block: int) -> list[float]:
    """Of an evaluation of each candidate, in those of the dual-stage selection.

    All work on as many tokens at a budget. But ratios of one mixture go through the layers before the first stage
    together, and candidates of other selectors each alone.

    Args:
        candidates: what there is to choose from.
        schedule: of the dual-stage selection.
        block: candidates that are asked of a sample at a time.
    """
    own = [candidate for candidate in candidates if candidate.selector is None]
    if not own or len(own) == len(candidates) or schedule is None:
        return [1.0] * len(candidates)
    mixtures = len({(candidate.alpha, candidate.downsample) for candidate in own})
    asked = min(block, len(own))
    # Expected of candidates that are drawn for a block.
    different = mixtures * (1 - (1 - 1 / mixtures) ** asked)
    shared = _before_first(schedule) * (1 - different / asked)
    return [1.0 if candidate.selector is None else 1 / (1 - shared) for candidate in candidates]


def _before_first(schedule: AnySchedule) -> float:
    """Which share of the tokens that all decoder layers work on the layers before the first stage do."""
    whole = schedule.starts[0] / schedule.layers
    if isinstance(schedule, Schedule):
        return whole * schedule.tokens / schedule.mean_tokens
    if isinstance(schedule, RelativeSchedule):
        assert schedule.budget.percent is not None
        return whole * 100 / schedule.budget.percent
    assert isinstance(schedule, ShareSchedule)
    return whole
