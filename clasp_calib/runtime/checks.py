"""What cannot be pruned is refused here, before any work."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from transformers.cache_utils import DynamicCache

from clasp_calib.common.errors import BudgetError, InputError, ModelError
from clasp_calib.common.pruning_options import AT_INPUT, COMPACT, DEFAULT_STARTS, INPUT, KEEP, PruningOptions
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import default_options
from clasp_calib.runtime.schedule import AnySchedule, Schedule
from clasp_calib.runtime.stages import Plan


def checked(model: Any, adapter: Adapter, plan: Plan) -> Plan:
    """A plan with what its options leave to the model, which can be pruned so.

    Raises:
        BudgetError: see `check_schedule`.
        ModelError: see `settled`, `check_decoder` and `check_relevances`.
    """
    plan = replace(plan, options=settled(model, adapter, plan.options))
    (check_positions if plan.options.profile == INPUT else check_decoder)(model, plan.options.positions)
    check_schedule(adapter, plan.schedule, plan.options)
    check_relevances(model, adapter, plan.relevances)
    return plan


def check_schedule(adapter: Adapter, schedule: AnySchedule, options: PruningOptions) -> None:
    """Refuse a schedule that was made for another model, or with other stages than the options ask for.

    Raises:
        BudgetError: with what the model has, or with both stages.
    """
    default = DEFAULT_STARTS if options.profile != INPUT else None
    if options.starts not in (default, schedule.starts) or (options.profile == INPUT) != (schedule.starts == AT_INPUT):
        raise BudgetError(
            f"the options ask for stages at layers {options.starts}, and the schedule has them at {schedule.starts}; "
            "make the schedule with the same options: schedule_for(model, budget, options)"
        )
    if adapter.ragged:
        if isinstance(schedule, Schedule):
            raise BudgetError(
                f"the schedule counts {schedule.tokens} visual tokens, but pictures of this model differ in their "
                "number; give a percentage (schedule_for(model, '33%'))"
            )
        has, given = f"{adapter.decoder_layers} layers", f"{schedule.layers} layers"
    else:
        tokens = schedule.tokens if isinstance(schedule, Schedule) else adapter.tokens_per_image
        has = f"{adapter.tokens_per_image} visual tokens and {adapter.decoder_layers} layers"
        given = f"{tokens} visual tokens and {schedule.layers} layers"
    if has != given:
        raise BudgetError(f"the schedule is for {given}; this model has {has}: make one for it (schedule_for)")


def check_length(config: Any, tokens: int) -> None:
    """Refuse a prompt that is longer than a model's context.

    Args:
        config: of the model.
        tokens: of the prompt, visual ones too, all of them: pruning leaves positions as they are.

    Raises:
        InputError: with both lengths.
    """
    most = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if most is not None and tokens > most:
        raise InputError(
            f"a prompt of {tokens} tokens, those of the picture too, is longer than the {most} that the model was made "
            "for (max_position_embeddings); shorten the question, or leave it out"
        )


def position_axes(model: Any) -> int:
    """How many axes the position ids of a model, or of its configuration, have; 0 where they are plain numbers."""
    config = getattr(model, "config", model)
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return len(rope.get("mrope_section") or ())


def settled(model: Any, adapter: Adapter, options: PruningOptions | None) -> PruningOptions:
    """Options, or the default ones, with what they leave to the model.

    Raises:
        ModelError: the model has not the profile or the relevance.
    """
    kind, options = model.config.model_type, options or default_options(adapter)
    if options.profile not in adapter.profiles:
        raise ModelError(
            f"a {kind} model cannot be pruned with profile={options.profile!r}; give profile "
            f"{' or '.join(map(repr, adapter.profiles))}"
        )
    if options.profile != INPUT:
        return options
    relevance = options.relevance or adapter.relevances[0]
    check_relevances(model, adapter, [relevance])
    return replace(options, relevance=relevance, positions=options.positions or positions_on(model, COMPACT))


def check_relevances(model: Any, adapter: Adapter, relevances: Iterable[str]) -> None:
    """Refuse what the vision tower cannot rate tokens by.

    Raises:
        ModelError: with the first of such.
    """
    if lacking := [relevance for relevance in relevances if relevance not in adapter.relevances]:
        raise ModelError(
            f"relevance={lacking[0]!r} is not to be had of the vision tower of this {model.config.model_type} model; "
            f"give {' or '.join(map(repr, adapter.relevances))}"
        )


def positions_on(model: Any, wanted: str) -> str:
    """``wanted``, or ``keep`` where positions have several axes, which cannot be numbered anew."""
    return KEEP if position_axes(model) else wanted


def check_decoder(model: Any, positions: str | None) -> None:
    """Refuse decoders whose attention or positions pruning inside them would break.

    Raises:
        ModelError: sliding windows, or compact positions where they have several axes.
    """
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if window is not None or kinds != {"full_attention"}:
        raise ModelError(
            f"the language model attends with a sliding window ({window or ', '.join(sorted(kinds))}), which "
            "counts positions that pruning removes; expected full attention in every layer"
        )
    check_positions(model, positions)


def check_positions(model: Any, positions: str | None) -> None:
    """Refuse positions that cannot be numbered anew.

    Raises:
        ModelError: compact positions where they have several axes.
    """
    if positions == COMPACT and (axes := position_axes(model)):
        raise ModelError(
            f"positions='compact' numbers tokens along one axis, and those of a {model.config.model_type} model have "
            f"{axes} (time, height, width); use positions='keep'"
        )


def check_generate(model: Any, ids: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of ``generate`` that a pruned model cannot be called with, see `check_call`."""
    config = arguments.get("generation_config") or getattr(model, "generation_config", None)
    kind = arguments.get("cache_implementation", getattr(config, "cache_implementation", None))
    beams = arguments.get("num_beams") or getattr(config, "num_beams", None) or 1
    if beams > 1 and is_recurrent(model):
        raise ModelError(
            f"a {model.config.model_type} model keeps recurrent states, and beam search among pruned rows has not been "
            "shown to give what a model without a cache does; use num_beams=1"
        )
    check_call(ids, arguments.get("past_key_values"), kind)


def is_recurrent(model: Any) -> bool:
    """Whether some decoder layers keep a state in place of keys and values."""
    return "linear_attention" in (getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ())


def check_call(ids: Any, cache: Any, cache_implementation: str | None = None) -> None:
    """Refuse what a pruned model cannot be called with.

    Raises:
        ModelError: embeddings without ids, or a cache whose layers have one common length.
    """
    if ids is None:
        raise ModelError(
            "pruning needs input_ids, to see which tokens are visual; give input_ids, with pixel_values "
            "or mm_encoder_outputs, rather than inputs_embeds"
        )
    other = None if cache is None or isinstance(cache, DynamicCache) else type(cache).__name__
    if other is None and cache_implementation not in (None, "dynamic", "dynamic_full"):
        other = f"{cache_implementation} cache"
    if other:
        raise ModelError(
            f"pruned layers hold fewer keys than the first, which a {other} cannot; "
            "use the default DynamicCache (drop cache_implementation or past_key_values)"
        )
