"""What cannot be pruned is refused here, before anything is put on a model."""

from typing import Any

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.adapters.base import Adapter
from clasp_calib.runtime.schedule import AnySchedule, Schedule
from clasp_calib.runtime.scoring import RATERS

POSITIONS = ("keep", "compact")
FEATURES = ("projected", "hidden")
_CHOICES = {"raters": RATERS, "positions": POSITIONS, "features": FEATURES}


def check_options(**given: str) -> None:
    """Refuse options by other names than theirs.

    Raises:
        ModelError: with the names that there are.
    """
    for name, value in given.items():
        if value not in _CHOICES[name]:
            raise ModelError(f"{name} is {value!r}; expected one of {', '.join(_CHOICES[name])}")


def check_schedule(adapter: Adapter, schedule: AnySchedule) -> None:
    """Refuse a schedule that was made for another model.

    Raises:
        BudgetError: with what the model has.
    """
    if adapter.ragged:
        if isinstance(schedule, Schedule):
            raise BudgetError(
                f"the schedule counts {schedule.tokens} visual tokens, but pictures of this model differ in their "
                "number; give a percentage (schedule_for(model, '33%'))"
            )
        has, given = (adapter.decoder_layers,), (schedule.layers,)
    else:
        tokens = schedule.tokens if isinstance(schedule, Schedule) else adapter.tokens_per_image
        has, given = (adapter.tokens_per_image, adapter.decoder_layers), (tokens, schedule.layers)
    if has != given:
        raise BudgetError(
            f"the schedule is for {_said(given)}; this model has {_said(has)}: "
            "make one for it (schedule_for)"
        )


def _said(numbers: tuple[int, ...]) -> str:
    return " visual tokens and ".join(map(str, numbers)) + " layers"


def check_decoder(model: Any, positions: str) -> None:
    """Refuse decoders whose attention or positions pruning would break.

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
    axes = (getattr(text, "rope_parameters", None) or {}).get("mrope_section")
    if positions == "compact" and axes:
        raise ModelError(
            f"positions='compact' numbers tokens along one axis, and those of a {model.config.model_type} model have "
            f"{len(axes)} (time, height, width); use positions='keep'"
        )
