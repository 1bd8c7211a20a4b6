"""Seeing what a model is given before it begins: ``generate`` encodes pictures before any forward is called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import get_ident
from typing import Any

from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.runtime.adapters.adapter import Adapter

Watcher = Callable[[Any, dict[str, Any]], None]


@contextmanager
def watched_generate(model: Any, watcher: Watcher, ended: Callable[[], None] | None = None) -> Iterator[None]:
    """Show every call of ``model.generate`` to ``watcher(ids, arguments)`` first; it may raise.

    ``ended`` is called after a call that the watcher let pass, however that went.
    The instance's attribute is set and taken off again; the class is left alone.
    """
    plain, before = model.generate, vars(model).get("generate")

    @wraps(plain)
    def generate(*args: Any, **kwargs: Any) -> Any:
        watcher(kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None)), kwargs)
        try:
            return plain(*args, **kwargs)
        finally:
            if ended is not None:
                ended()

    model.generate = generate
    try:
        yield
    finally:
        if before is None:
            del model.generate
        else:
            model.generate = before


def modalities(adapter: Adapter, inputs: dict[str, Any]) -> list[str]:
    """Of what kinds the arguments of a forward bring pictures, as pixels or as features.

    Raises:
        ModelError: see `check_modalities`.
    """
    check_modalities(adapter, inputs)
    given = inputs.get("mm_encoder_outputs") or {}
    return [
        modality
        for modality, pixels in adapter.pixel_names.items()
        if inputs.get(pixels) is not None or given.get(modality) is not None
    ]


def check_modalities(adapter: Adapter, inputs: dict[str, Any]) -> None:
    """Refuse videos, as pixels or as features, where the adapter knows none: they would pass unpruned.

    Raises:
        ModelError: there are some.
    """
    brought = inputs.get("pixel_values_videos"), (inputs.get("mm_encoder_outputs") or {}).get("video")
    if "video" not in adapter.pixel_names and any(videos is not None for videos in brought):
        raise ModelError(
            f"the videos of a {adapter.config.model_type} model cannot be pruned, only its pictures; answer questions "
            "about videos outside of the pruning context"
        )


@contextmanager
def batches_of(model: Any, adapter: Adapter, rows: int, given: str) -> Iterator[None]:
    """Refuse prompts of any other number than ``rows``, in ``generate`` and in forwards that bring pictures.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        rows: of a batch, before ``generate`` repeats them for beams.
        given: what there is one of for every row, for the error.

    Raises:
        InputError: with both numbers.
    """
    generating: set[int] = set()  # threads, of which another part refuses all but one

    def check(ids: Any) -> None:
        if ids is not None and len(ids) != rows:
            raise InputError(f"{rows} {given} were given for a batch of {len(ids)} rows; give one for every row")

    def begin(ids: Any, _: dict[str, Any]) -> None:
        check(ids)
        generating.add(get_ident())

    def end() -> None:
        generating.discard(get_ident())

    def see(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if modalities(adapter, kwargs) and get_ident() not in generating:
            check(args[0] if args else kwargs.get("input_ids"))

    hook = adapter.multimodal_model(model).register_forward_pre_hook(see, prepend=True, with_kwargs=True)
    try:
        with watched_generate(model, begin, end):
            yield
    finally:
        hook.remove()
