"""LLaVA-PruMerge and PruMerge+: patches whose class attention is an outlier, with their neighbours merged in.

Shang et al., LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models, arXiv 2403.15388.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from statistics import fmean
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import ChoosesAtInput
from clasp_calib.baselines.solving import ImageDependent, Spread, solve_knob
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import pruning_budget
from clasp_calib.runtime.encoding import Encoded, Kept, TowerAttention, chosen_tokens

NEIGHBOURS = 32
IQR_RANGE = (-20.0, 40.0)


def single_head_attention(attention: TowerAttention, tile: int) -> Tensor:
    """Attention from the class token of a tile to its patches, queries and keys taken as one head of full width."""
    query_C, key_tC = attention.query_RHtd[tile, :, 0].flatten(), attention.key_RHtd[tile].transpose(0, 1).flatten(1)
    attention_t = torch.softmax(key_tC @ query_C * query_C.shape[0] ** -0.5, dim=0)
    return attention_t[attention.class_tokens :]


def outliers(attention_P: Tensor, iqr: float) -> int:
    """How many values are above the third quartile by more than ``iqr`` interquartile ranges."""
    low, high = torch.quantile(attention_P, attention_P.new_tensor([0.25, 0.75])).unbind()
    return int((attention_P > high + iqr * (high - low)).sum())


def spread(attention_P: Tensor, top: int) -> Tensor:
    """PruMerge+: patches at even steps that are not among the ``top`` most attended; long.

    With P patches the step is a third of P / top, rounded down twice; the last patch is never one of them.
    """
    step = max(int(len(attention_P) / top) // 3, 1)
    step_S = torch.arange(0, len(attention_P) - 1, step, device=attention_P.device)
    return step_S[~torch.isin(step_S, first_largest(attention_P, top))]


def merged(states_PC: Tensor, keys_PC: Tensor, attention_P: Tensor, chosen: Tensor) -> Tensor:
    """The chosen patches, each with its nearest neighbours added, and one token of all that were not chosen.

    Neighbours are the `NEIGHBOURS` other patches, chosen or not, whose keys are nearest in cosine; they are weighted by
    their attention, and the weights do not sum to 1. The last token is the sum of the others, weighted likewise.

    Args:
        states_PC: floating.
        keys_PC: of full width.
        attention_P: from the class token.
        chosen: indices [T], long.

    Returns:
        [T + 1, C].
    """
    unit_PC = functional.normalize(keys_PC, dim=-1)
    cosine_TP = unit_PC[chosen] @ unit_PC.mT
    cosine_TP[torch.arange(len(chosen), device=chosen.device), chosen] = -torch.inf
    near_PT = first_largest(cosine_TP.mT, min(NEIGHBOURS, len(states_PC) - 1))
    weight_TP = torch.zeros_like(cosine_TP).scatter(1, near_PT.mT, attention_P[near_PT.mT])
    rest_P = torch.ones_like(attention_P).index_fill(0, chosen, 0) * attention_P
    return torch.cat([states_PC[chosen] + weight_TP @ states_PC, (rest_P @ states_PC)[None]])


@dataclass(frozen=True)
class PruMerge(ImageDependent, ChoosesAtInput):
    """Outliers of the class attention in the block that the projected state enters; all before the projector.

    Order: by attention, then the token of the rest; renumbered. How many there are depends on the image: a budget is
    met by solving ``iqr`` on images (`calibrated`).

    Our choice: a tile without outliers keeps its most attended patch; and where the projected state is the
    tower's last, which enters no block, the last block is looked at.
    """

    in_order: ClassVar[bool] = False
    name: ClassVar[str] = "prumerge"
    paper: ClassVar[str] = "arXiv 2403.15388"
    semantics: ClassVar[str] = "tokens that enter the decoder, as many as the image has outliers"

    iqr: float = 1.5
    """Interquartile ranges above the third quartile from which on attention is an outlier."""

    def calibrated(
        self, model: nn.Module, images: Iterable[Mapping[str, Any]], budget: str | int
    ) -> tuple[Self, Spread]:
        """See `ImageDependent`; only the pictures in ``images`` are read."""
        adapter = self.adapter_for(model)
        wanted = pruning_budget(adapter, budget)
        seen: list[list[Tensor]] = []
        tokens: list[float] = []

        def look(image: Encoded) -> Kept:
            seen.append([self._attention(image, token_P) for token_P in image.patches()])
            tokens.append(wanted.of(len(image.layout.cell_N)))
            return Kept(torch.arange(len(image.layout.cell_N)))

        with chosen_tokens(model, adapter, self.tower_blocks(adapter), look, in_place=True), torch.no_grad():
            encode: Any = adapter.multimodal_model(model).get_image_features
            names = signature(encode).parameters
            for batch in images:
                encode(**{name: value for name, value in batch.items() if name in names}, return_dict=True)

        def tokens_at(iqr: float) -> list[int]:
            method = replace(self, iqr=iqr)
            return [sum(map(method._tokens, tiles)) for tiles in seen]

        iqr, spread = solve_knob(tokens_at, fmean(tokens), *IQR_RANGE, f"{self.name} with iqr")
        return replace(self, iqr=iqr), spread

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        return None if adapter.class_tokens else "its tower has no class token, whose attention has the outliers"

    def tower_blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """The one after the projected state."""
        return (min(adapter.own_layer, adapter.vision_layers - 1),)

    def count(self, image: Encoded) -> int:
        """Of all tiles."""
        return sum(self.allot(image, image.patches(), 0))

    def allot(self, image: Encoded, tiles: Sequence[Tensor], count: int) -> list[int]:
        """What comes out, whatever ``count`` says."""
        return [self._tokens(self._attention(image, token_P)) for token_P in tiles]

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `ChoosesAtInput`."""
        (attention,) = image.attention.values()
        cell_P, attention_P = image.cells(token_P), self._attention(image, token_P)
        chosen = self._chosen(attention_P)
        states_TC = merged(image.states_UC[cell_P].float(), attention.keys()[cell_P].flatten(1), attention_P, chosen)
        rest_P = torch.ones(len(token_P), dtype=torch.bool, device=token_P.device).index_fill(0, chosen, False)
        return Kept(token_P[torch.cat([chosen, rest_P.nonzero()[0]])], states_TC=states_TC)

    def _attention(self, image: Encoded, token_P: Tensor) -> Tensor:
        (attention,) = image.attention.values()
        cell_P, patches = image.cells(token_P), image.layout.cells // image.layout.tiles
        return single_head_attention(attention, int(cell_P[0]) // patches)[cell_P % patches]

    def _tokens(self, attention_P: Tensor) -> int:
        """Of a tile, all of it if merging would leave as many."""
        return min(len(self._chosen(attention_P)) + 1, len(attention_P))

    def _chosen(self, attention_P: Tensor) -> Tensor:
        return first_largest(attention_P, max(outliers(attention_P, self.iqr), 1))


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge with patches at even steps beside the outliers; they come after them, and are merged likewise."""

    name: ClassVar[str] = "prumerge+"

    def _chosen(self, attention_P: Tensor) -> Tensor:
        top = super()._chosen(attention_P)
        return torch.cat([top, spread(attention_P, len(top))])
