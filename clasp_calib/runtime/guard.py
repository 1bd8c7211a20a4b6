"""What is kept out while a model is pruned: a second thread, copies, and arguments that would make it wrong."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.attention import COPIED
from clasp_calib.runtime.finite import NonFiniteError, all_finite
from clasp_calib.runtime.generation import watched_generate

_COPIERS = ("__deepcopy__", "__reduce_ex__")


class _Turn:
    """One call at a time: a thread that calls while another's call is on its way is refused."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: int | None = None
        self._depth = 0

    def take(self) -> bool:
        """Whether this call begins, rather than a part of it.

        Raises:
            ModelError: it is another thread's turn.
        """
        with self._lock:
            if self._owner not in (None, get_ident()):
                raise ModelError(
                    "this pruned model is being called by another thread, and one state would serve both; call it "
                    "from one thread at a time (a lock), or give each thread a model of its own"
                )
            self._owner = get_ident()
            self._depth += 1
            return self._depth == 1

    @property
    def taken(self) -> bool:
        """Whether a call is on its way."""
        return self._owner is not None

    def leave(self) -> None:
        """The call, or its part, is over. A call that was refused leaves nothing."""
        with self._lock:
            if self._owner == get_ident():
                self._depth -= 1
                if not self._depth:
                    self._owner = None


@contextmanager
def guarded(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Refuse what would make a pruned model wrong, within the ``with`` block; to be entered last.

    Threads may call the model in turn. In a call: a second thread, pixels or features that are not finite, and what
    `clasp_calib.runtime.adapters.adapter.Adapter.check_arguments` refuses. At any time: `copy.deepcopy` and pickling,
    whose result would share hooks and ``generate`` with this model. At the end: a call that is still on its way.

    Args:
        model: what ``adapter`` is for, pruned already.
        adapter: of the model.
    """
    turn, multimodal = _Turn(), adapter.multimodal_model(model)

    def begin(arguments: Mapping[str, Any]) -> None:
        first = turn.take()
        try:
            if first:
                check(arguments)
        except ModelError:
            turn.leave()
            raise

    def enter(_: nn.Module, __: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        if turn.take():  # what generate has encoded may bear marks
            check(arguments)

    def check(arguments: Mapping[str, Any]) -> None:
        adapter.check_arguments(arguments)
        check_pictures(adapter, arguments)

    parts = {model, multimodal, adapter.language_model(model)}
    parts |= {adapter.vision_tower(model, modality) for modality in adapter.towers}
    with ExitStack() as undo:
        for part in parts:
            undo.enter_context(_uncopied(part))
        undo.enter_context(watched_generate(model, lambda _, arguments: begin(arguments), turn.leave))
        undo.callback(multimodal.register_forward_pre_hook(enter, prepend=True, with_kwargs=True).remove)
        # Called after a refusal in `enter` too.
        undo.callback(multimodal.register_forward_hook(lambda *_: turn.leave(), always_call=True).remove)
        yield
        if turn.taken:
            raise ModelError(
                "the with block ends while another thread is calling the pruned model, whose answer would go on "
                "unpruned; wait for that thread (join) within the block, and ask again"
            )


def check_pictures(adapter: Adapter, arguments: Mapping[str, Any]) -> None:
    """Refuse pictures, in pixels or as features, with numbers that are not finite.

    Args:
        adapter: of the model.
        arguments: of ``forward`` or ``generate``.

    Raises:
        NonFiniteError: it names the argument and the first picture, counted from 0.
    """
    features = arguments.get("mm_encoder_outputs") or {}
    for modality, pixels in adapter.pixel_names.items():
        _check(arguments.get(pixels), f"{pixels} of", "the processor's output")
        pooled = getattr(features.get(modality), "pooler_output", None)
        _check(pooled, f"{modality} features (mm_encoder_outputs) of", "the layers and the dtype that they are from")


def _check(values: Any, what: str, where: str) -> None:
    if values is None or not len(values):
        return
    # Patches of all pictures may come as one sequence.
    parts = [values] if isinstance(values, Tensor) and values.ndim < 3 else list(values)
    finite = torch.stack([all_finite(part) for part in parts])
    if not bool(finite.all()):
        raise NonFiniteError(
            f"{what} picture {finite.tolist().index(False)} are not all finite numbers; look at {where}"
        )


@contextmanager
def _uncopied(part: nn.Module) -> Iterator[None]:
    """Refuse copies of a module by attributes of the instance, which both copy and pickle look for."""

    def refuse(*_: Any) -> None:
        raise ModelError(COPIED)

    before = {name: vars(part)[name] for name in _COPIERS if name in vars(part)}
    for name in _COPIERS:
        setattr(part, name, refuse)
    try:
        yield
    finally:
        for name in _COPIERS:
            if name in before:
                setattr(part, name, before[name])
            else:
                delattr(part, name)
