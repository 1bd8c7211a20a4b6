"""Methods that prune between decoder layers and look at more than one rating of the tokens."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import nn

from clasp_calib.baselines.knobs import require_starts
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row, RowPlan
from clasp_calib.baselines.method import Method, Reader
from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.checks import check_decoder, positions_on
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.mixed_batch import RowActions
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.stages import PromptLengths

PUBLISHED_LAYERS = 32
"""Decoder layers of the 7B models that the papers' layer numbers are for."""


@dataclass(frozen=True)
class StagedMethod(Method):
    """A method whose stages choose row by row; ``starts`` are those of a decoder of 32 layers or more.

    Our choice: in a shallower decoder, starts are as deep in proportion (`in_depth`).
    """

    positions: ClassVar[str] = "keep"

    starts: tuple[int, ...]
    """Decoder layers that the shortened sequence enters."""

    def __post_init__(self) -> None:
        require_starts(self)

    @abstractmethod
    def choose(self, stage: int, row: Row) -> KeptTokens:
        """See `clasp_calib.baselines.mechanisms.row_stages.Choose`."""

    @abstractmethod
    def at_share(self, layers: int, share: float) -> Self:
        """The method with knobs at which a decoder's layers work on this share of a row's tokens, under 1.

        Raises:
            BudgetError: they cannot.
        """

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """See `Method`."""
        tokens = picture_tokens(adapter) or 100
        return self.at_share(adapter.decoder_layers, budget.of(tokens) / tokens)

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        pruner = Pruner(model, adapter, self._plan(model, adapter).for_prompts(prompt_lengths))
        with pruner.attached():
            yield lambda: pruner.stats

    def actions(self, model: nn.Module, adapter: Adapter) -> RowActions | None:
        """See `Method`."""
        if type(self).attached is not StagedMethod.attached:
            return None
        return RowActions(plan=self._plan(model, adapter))

    def _plan(self, model: nn.Module, adapter: Adapter) -> RowPlan:
        starts, positions = in_depth(self.starts, adapter.decoder_layers), positions_on(model, self.positions)
        check_decoder(model, positions)
        return RowPlan(self.choose, starts, positions, adapter.language_model(model))


def in_depth(starts: Sequence[int], layers: int) -> tuple[int, ...]:
    """Starts of a decoder of 32 layers in one of ``layers``, rising and at least 1.

    Raises:
        BudgetError: the decoder is too shallow for so many.
    """
    placed: list[int] = []
    for start in starts:
        place = start if layers >= PUBLISHED_LAYERS else (start * layers + PUBLISHED_LAYERS // 2) // PUBLISHED_LAYERS
        placed.append(max(place, placed[-1] + 1 if placed else 1))
    if placed[-1] >= layers:
        raise BudgetError(f"stages at layers {list(starts)} of 32 do not fit a decoder of {layers} layers")
    return tuple(placed)


def spans_of(starts: Sequence[int], layers: int) -> list[int]:
    """Layers before the first start, and from each start to the next."""
    return [b - a for a, b in pairwise((0, *starts, layers))]


def scaled_shares(shape: Sequence[float], spans: Sequence[int], share: float, name: str) -> tuple[float, ...]:
    """Shares of the stages, in proportion to ``shape`` and none above 1, whose mean over layers is ``share``.

    Args:
        shape: one number a stage.
        spans: as `spans_of` gives them.
        share: wanted, with the unpruned layers before the first stage.
        name: of the method.

    Raises:
        BudgetError: less than the unpruned layers cost, or more than all stages can keep.
    """
    layers, alive = sum(spans), sum(span for span, part in zip(spans[1:], shape, strict=True) if part > 0)
    floor, ceiling = spans[0] / layers, (spans[0] + alive) / layers
    if not floor < share <= ceiling:
        raise BudgetError(
            f"{name} cannot work on {100 * share:.4g}% of the tokens in the mean: it starts at layer {spans[0]} of "
            f"{layers} and can reach more than {100 * floor:.4g}% and at most {100 * ceiling:.4g}%; "
            "give a budget between these"
        )
    low, high = 0.0, 1 / min(part for part in shape if part > 0)
    for _ in range(100):
        middle = (low + high) / 2
        mean = sum(span * min(middle * part, 1) for span, part in zip(spans[1:], shape, strict=True))
        low, high = (middle, high) if mean < share * layers - spans[0] else (low, middle)
    return tuple(min(high * part, 1.0) for part in shape)


def count_of(share: float, tokens: int) -> int:
    """A share of a row's tokens, to the nearest, at least one of them unless the share is 0."""
    return min(max(int(share * tokens + 0.5 + 1e-9), 1 if share else 0), tokens)


def everything(row: Row) -> KeptTokens:
    """All visual tokens of a row."""
    return KeptTokens(torch.arange(len(row.visual_N), device=row.visual_N.device))
