"""A vision tower watched as it runs, or replaced by something that looks like it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded_states(blocks: Sequence[nn.Module], layers: Sequence[int], states: dict[int, Tensor]) -> Iterator[None]:
    """Note the states of a tower whenever it runs: of layer 0 what enters the first block, else what block l - 1 gives.

    transformers' own ``output_hidden_states`` leaves its hooks on a tower for good, and keeps every layer.
    """
    with ExitStack() as undo:
        for layer in layers:
            if layer == 0:

                def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                    states[0] = args[0] if args else kwargs["hidden_states"]

                undo.callback(blocks[0].register_forward_pre_hook(enter, with_kwargs=True).remove)
            else:

                def leave(_: nn.Module, __: tuple[Any, ...], output: Any, layer: int = layer) -> None:
                    states[layer] = output[0] if isinstance(output, tuple) else output

                undo.callback(blocks[layer - 1].register_forward_hook(leave).remove)
        yield


class EncodedError(Exception):
    """The tower has run; what comes after it is of no interest."""


class _StandIn(nn.Module):
    """Takes a tower's place and otherwise looks like it."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.__dict__["tower"] = tower  # past nn.Module, to which it would be a part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["tower"], name)


class Recorder(_StandIn):
    """Runs the tower and no further. Its forward rather than a call: a hook that fuses must not see this."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See the class."""
        self.__dict__["tower"].forward(*args, **kwargs)
        raise EncodedError


class Recorded(_StandIn):
    """Returns what ``made`` makes of the arguments of its call, whatever it is shown."""

    def __init__(self, tower: nn.Module, made: Callable[[Mapping[str, Any]], Any]) -> None:
        super().__init__(tower)
        self.__dict__["made"] = made

    def forward(self, *_: Any, **call: Any) -> Any:
        """See the class."""
        return self.__dict__["made"](call)


@contextmanager
def replaced(multimodal: nn.Module, name: str, stand_in: nn.Module) -> Iterator[None]:
    """Let ``stand_in`` be the tower of a model that has it as ``name``."""
    tower = getattr(multimodal, name)
    setattr(multimodal, name, stand_in)
    try:
        yield
    finally:
        setattr(multimodal, name, tower)
