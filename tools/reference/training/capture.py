"""On a GPU, a training step as one CUDA graph: a step of so small a model takes far longer to launch than to run."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Given = TypeVar("Given", bound=tuple[Any, ...])
Out = TypeVar("Out")


def launched_at_once(step: Callable[[Given], Out], device: torch.device) -> Callable[[Given], Out]:
    """The same step, which may cost less on this device."""
    return Captured(step) if device.type == "cuda" else step


class Captured(Generic[Given, Out]):
    """A step that is recorded once for every shape of what it is given, and replayed.

    What a replay returns is overwritten by the next one. The first steps of a shape run as they are written: they make
    what a recording must find made, like an optimizer's state.

    Args:
        step: whose every tensor outlives it or is made in it, and which never waits for the GPU.
    """

    AS_WRITTEN = 2

    def __init__(self, step: Callable[[Given], Out]):
        self._step = step
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._seen: Counter[Any] = Counter()
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Out]] = {}

    def __call__(self, given: Given) -> Out:
        """Run the step, or a recording of it."""
        tensors = _flat(given)
        shape = tuple(tensor.shape for tensor in tensors)
        self._seen[shape] += 1
        if self._seen[shape] <= self.AS_WRITTEN:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                out = self._step(given)
            torch.cuda.current_stream().wait_stream(self._stream)
            return out
        if shape not in self._recorded:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                out = self._step(given)
            # What was given stays where it is: later steps are copied there.
            self._recorded[shape] = graph, tensors, out
        graph, places, out = self._recorded[shape]
        for place, tensor in zip(places, tensors, strict=True):
            if place is not tensor:
                place.copy_(tensor)
        graph.replay()
        return out


def _flat(given: tuple[Any, ...]) -> list[Tensor]:
    return [t for item in given for t in ([item] if isinstance(item, Tensor) else _flat(item))]
