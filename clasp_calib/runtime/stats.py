"""What a pruned prefill tells of itself: tokens, scores, who was kept and why, and how long it took.

B rows, N visual tokens that came to a stage, K of them kept.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class StageStats:
    """What one stage kept, as indices of patches in the row's picture (or pictures, one after the other).

    ``patches_BK`` is long, rising, and -1 (at the left) where a row keeps fewer than another; ``pivots_BK`` is bool,
    for the same tokens. ``arrived_BN`` are the patches that the stage chose from, likewise, and ``scores_BN`` their
    relevance, float32; zeros where a method rates nothing.
    """

    start: int
    patches_BK: Tensor
    pivots_BK: Tensor
    arrived_BN: Tensor
    scores_BN: Tensor

    def kept(self, row: int) -> list[int]:
        """Patches of this row that entered layer ``start``, in order."""
        return [patch for patch in self.patches_BK[row].tolist() if patch >= 0]

    def pivots(self, row: int) -> list[int]:
        """Those of `kept` that were chosen for their relevance."""
        return self.patches_BK[row][self.pivots_BK[row]].tolist()

    def medoids(self, row: int) -> list[int]:
        """Those of `kept` that represent the rest."""
        return sorted(set(self.kept(row)) - set(self.pivots(row)))

    def scores(self, row: int) -> dict[int, float]:
        """Relevance of every patch that the stage chose from."""
        pairs = zip(self.arrived_BN[row].tolist(), self.scores_BN[row].tolist(), strict=True)
        return {patch: score for patch, score in pairs if patch >= 0}


class Stopwatch:
    """Seconds spent in named parts of a forward; on a GPU by events, which are waited for when one asks."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as this part."""
        begun = self._now()
        yield
        self._spans.append((name, begun, self._now()))

    def include(self, other: "Stopwatch") -> None:
        """Count what another has counted as well."""
        self._spans += other._spans

    def seconds(self) -> dict[str, float]:
        """Total of every part."""
        if self._cuda:
            torch.cuda.synchronize()
        total: dict[str, float] = {}
        for name, begun, ended in self._spans:
            spent = begun.elapsed_time(ended) / 1000 if self._cuda else (ended - begun) / 1e9
            total[name] = total.get(name, 0.0) + spent
        return total

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter_ns()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


@dataclass(frozen=True)
class PruningStats:
    """One prefill: visual tokens of every row in every decoder layer, and what each stage kept."""

    tokens: tuple[tuple[int, ...], ...]
    stages: tuple[StageStats, ...]
    watch: Stopwatch = field(repr=False)

    @property
    def seconds(self) -> dict[str, float]:
        """What pruning cost: ``cosines`` between tokens, ``scoring`` by the raters, ``selection``."""
        return self.watch.seconds()

    @property
    def mean_tokens(self) -> tuple[float, ...]:
        """Of every row the mean number of visual tokens that a layer worked on."""
        return tuple(sum(layers) / len(layers) for layers in self.tokens)


class Pruned(Protocol):
    """A model under pruning.

    ``stats`` tells what the last forward that brought pictures kept; it is ``None`` before there was one, and where
    nothing is pruned.
    """

    @property
    def stats(self) -> PruningStats | None:
        """See the class."""
        ...
