"""FastV: from an early decoder layer on, the tokens that the last token of the prompt attends to most.

Chen et al., An Image is Worth 1/2 Tokens After Layer 2, arXiv 2403.06764.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import nn

from clasp_calib.baselines.knobs import require, require_shares
from clasp_calib.baselines.method import Method, Reader
from clasp_calib.common.errors import BudgetError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.checks import checked
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.mixed_batch import RowActions
from clasp_calib.runtime.schedule import Budget, ShareSchedule
from clasp_calib.runtime.selection import DualStage
from clasp_calib.runtime.stages import Plan, PromptLengths


@dataclass(frozen=True)
class FastV(Method):
    """Drops a share ``ratio`` of the visual tokens at the entry of decoder layer ``layer``, once.

    Scored with the attention of the layer before, mean over heads, from the last token of the prompt. Position ids
    are kept. The authors' code runs the scoring layer a second time for its attention; here its queries and keys
    are read as it runs.
    """

    name: ClassVar[str] = "fastv"
    paper: ClassVar[str] = "arXiv 2403.06764"
    semantics: ClassVar[str] = "tokens kept from layer K on"

    layer: int = 2
    """K, from 0."""
    ratio: float = 0.5
    """R, the share that is dropped."""

    def __post_init__(self) -> None:
        require(self, "layer", self.layer >= 1, "a decoder layer from 1 on, for the one before it scores")
        require_shares(self, "ratio")

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        if (layers := adapter.decoder_layers) > self.layer:
            return None
        return f"its decoder has {layers} layers, and tokens are to go at layer {self.layer} (give a smaller layer)"

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """R from ``L budget = K N + (L - K) (1 - R) N``.

        Raises:
            BudgetError: the layers before K alone cost more.
        """
        layers = adapter.decoder_layers
        tokens = picture_tokens(adapter) or 100
        kept = (layers * budget.of(tokens) - self.layer * tokens) / (layers - self.layer)
        least = 0 if adapter.ragged else 1
        if kept < least:
            floor = (self.layer * tokens + (layers - self.layer) * least) / layers
            unit = "%" if adapter.ragged else " tokens"
            raise BudgetError(
                f"fastv cannot meet a budget of {budget.name}: layers 0 to {self.layer - 1} of {layers} work on all "
                f"tokens, which is a floor of {floor:.4g}{unit}; prune from an earlier layer, or give a larger budget"
            )
        return replace(self, ratio=1 - kept / tokens)

    def schedule(self, adapter: Adapter) -> ShareSchedule:
        """One stage."""
        return ShareSchedule(adapter.decoder_layers, (self.layer,), (1 - self.ratio,))

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        pruner = Pruner(model, adapter, checked(model, adapter, self._plan(adapter)).for_prompts(prompt_lengths))
        with pruner.attached():
            yield lambda: pruner.stats

    def actions(self, model: nn.Module, adapter: Adapter) -> RowActions | None:
        """See `Method`."""
        return None if type(self).attached is not FastV.attached else RowActions(plan=self._plan(adapter))

    def _plan(self, adapter: Adapter) -> Plan:
        options, rho = PruningOptions(raters="last"), torch.ones(1, dtype=torch.float64)
        return Plan(self.schedule(adapter), rho, DualStage(needs_gram=False), options)
