"""From a budget to a schedule: what a number of tokens or a percentage means for one model."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clasp_calib.common.errors import BudgetError, InputError
from clasp_calib.common.pruning_options import AT_INPUT, DEFAULT_OPTIONS, INPUT, LAYERED, PruningOptions
from clasp_calib.runtime.schedule import (
    AnySchedule,
    Budget,
    RelativeSchedule,
    Schedule,
    ShareSchedule,
    parse_budget,
    prunes_nothing,
    solve_schedule,
)

if TYPE_CHECKING:
    from clasp_calib.artifacts.artifact import Artifact
    from clasp_calib.runtime.adapters.adapter import Adapter


def schedule_for(
    model: Any,
    budget: Budget | str | int,
    options: PruningOptions | None = None,
    artifact: "Artifact | None" = None,
) -> AnySchedule:
    """The schedule that meets a budget on a model, whether its pictures are of one size or differ.

    Args:
        model: a transformers model that an adapter is known for, or its configuration.
        budget: mean number of visual tokens that a decoder layer works on (``192``), or a percentage (``33%``). Where
            pictures differ in their number of tokens, only a percentage is possible.
        options: decide at which decoder layers the stages begin; those of `default_options` if ``None``.
        artifact: take the stages and their counts from this artifact instead, which was calibrated for the budget.

    Raises:
        BudgetError: the budget cannot be met.
        ArtifactError: the artifact was not calibrated for the budget.
        InputError: both options and an artifact were given.
        ModelError: no adapter knows the architecture.
    """
    from clasp_calib.runtime.adapters import adapter_for

    if options is not None and artifact is not None:
        raise InputError("schedule_for was given options and an artifact, which brings its own; give one of the two")
    adapter = adapter_for(model)
    wanted = budget if isinstance(budget, Budget) else parse_budget(budget)
    options = artifact.pruning if artifact else options or default_options(adapter)
    starts = options.starts
    if adapter.ragged and options.profile == INPUT:
        return ShareSchedule(adapter.decoder_layers, starts, (pruning_share(wanted),))
    if adapter.ragged:
        return RelativeSchedule(wanted, adapter.decoder_layers, starts)
    if artifact is not None:
        counts = artifact.counts(wanted.name)
        assert counts is not None  # an artifact of this shape has them
        return Schedule(adapter.tokens_per_image, adapter.decoder_layers, starts, counts)
    if options.profile == INPUT:
        return _at_input(wanted, adapter.tokens_per_image, adapter.decoder_layers)
    return solve_schedule(wanted, adapter.tokens_per_image, adapter.decoder_layers, starts)


def of_smaller(schedule: AnySchedule, share: float) -> AnySchedule:
    """What costs as much on pictures that are shown with at most a ``share`` of their tokens, or less.

    Raises:
        BudgetError: a schedule of pictures that all have as many tokens.
    """
    if isinstance(schedule, Schedule):
        raise BudgetError(
            f"pictures of this model have {schedule.tokens} visual tokens in every size, so smaller ones cost as much; "
            "take downsample out of the space"
        )
    if isinstance(schedule, ShareSchedule):
        return replace(schedule, shares=tuple(min(kept / share, 1.0) for kept in schedule.shares))
    assert schedule.budget.percent is not None
    return replace(schedule, budget=Budget(percent=min(schedule.budget.percent / share, 100.0)))


def default_options(adapter: "Adapter") -> PruningOptions:
    """Stages between decoder layers, or one before them where the decoder cannot be pruned inside."""
    # A server need not have what it is printed with.
    from clasp_calib.common.progress import note_once

    if LAYERED in adapter.profiles:
        return DEFAULT_OPTIONS
    note_once(f"a {adapter.config.model_type} model is pruned before its decoder (profile input), not inside it")
    return PruningOptions(profile=INPUT)


def picture_tokens(adapter: "Adapter") -> int | None:
    """Visual tokens of every picture; ``None`` where pictures differ in their number."""
    return None if adapter.ragged else adapter.tokens_per_image


def largest_budget(artifact: "Artifact") -> str:
    """Name of an artifact's largest budget; where pictures differ, means are of the samples that each was made on."""
    every = artifact.manifest.budgets
    return max(every, key=lambda of: of.mean_tokens if of.counts else parse_budget(of.name).of(100)).name


def pruning_budget(adapter: "Adapter", budget: str | int) -> Budget:
    """A budget under which a model is pruned, or the full one.

    Raises:
        BudgetError: tokens where pictures differ in number of them, or as many as a picture has.
    """
    wanted, tokens = parse_budget(budget), picture_tokens(adapter)
    if tokens is None:
        pruning_share(wanted)
    if tokens is not None and not wanted.full and wanted.of(tokens) >= tokens:
        raise BudgetError(prunes_nothing(wanted, tokens))
    return wanted


def pruning_share(budget: Budget) -> float:
    """A budget as a share of each picture's own tokens.

    Raises:
        BudgetError: it counts tokens.
    """
    if budget.percent is None:
        raise BudgetError(
            f"a budget of {budget.name} tokens means something else for every picture of a model whose pictures "
            "differ in their number of visual tokens; give a percentage, such as 33%"
        )
    return budget.percent / 100


def _at_input(budget: Budget, tokens: int, layers: int) -> Schedule:
    """One stage before the decoder: the budget is what enters, halves up, for all layers work on as many."""
    if not budget.full and budget.of(tokens) >= tokens:
        raise BudgetError(prunes_nothing(budget, tokens))
    return Schedule(tokens, layers, AT_INPUT, (max(int(budget.of(tokens) + 0.5 + 1e-9), 1),))
