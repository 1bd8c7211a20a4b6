"""Merging tokens inside a CLIP tower, between the attention and the MLP of a block, so that later blocks see fewer.

R tiles, t tokens of a tile (class token first), C width, H heads, d width of a head.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.attention import PRUNED_ALREADY, watched_attention


@dataclass(frozen=True)
class TowerTokens:
    """The tokens of all tiles on their way: states [R, t, C], how many patches each stands for [R, t, 1] (floating),
    and the patch whose place each has, -1 for the class token [R, t] (long).
    """

    states_RtC: Tensor
    size_Rt1: Tensor
    place_Rt: Tensor


Merge = Callable[[TowerTokens, Tensor, Tensor, float], TowerTokens]
"""Is given the tokens after a block's attention, its queries and keys [R, H, t, d], and the factor of its logits."""


class MergingTower:
    """``tokens`` are those that the last run left, and ``runs`` counts runs."""

    def __init__(self) -> None:
        self.tokens: TowerTokens | None = None
        self.runs = 0


@contextmanager
def merging_tower(
    model: nn.Module, adapter: Adapter, merges: Mapping[int, Merge], proportional: bool
) -> Iterator[MergingTower]:
    """Let blocks of the tower merge tokens.

    Args:
        model: what ``adapter`` is for.
        adapter: of a model with a CLIP tower.
        merges: by block, from 0.
        proportional: whether a token that stands for several is attended to as if it were as many.

    Raises:
        ModelError: another method is at work on this tower.
    """
    tower = MergingTower()
    with ExitStack() as undo:
        for number, block in enumerate(adapter.vision_blocks(model)):
            if "forward" in vars(block):
                raise ModelError(PRUNED_ALREADY)
            forward = partial(_forward, block, tower, number == 0, merges.get(number), proportional)
            vars(block)["forward"] = forward
            undo.callback(vars(block).pop, "forward")
        yield tower


def _forward(
    block: Any,
    tower: MergingTower,
    first: bool,
    merge: Merge | None,
    proportional: bool,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """A CLIP layer (transformers' CLIPEncoderLayer) with a step between its halves."""
    if first:
        rows, width = hidden_states.shape[:2]
        place_Rt = torch.arange(-1, width - 1, device=hidden_states.device).expand(rows, -1)
        tower.tokens = TowerTokens(hidden_states, hidden_states.new_ones(rows, width, 1), place_Rt)
        tower.runs += 1
    assert tower.tokens is not None
    size_Rt1 = tower.tokens.size_Rt1
    if proportional and bool((size_Rt1 > 1).any()):
        attention_mask = size_Rt1.log()[:, None, None, :, 0].to(hidden_states.dtype)
    seen: list[tuple[Tensor, Tensor, float]] = []
    with watched_attention(block.self_attn, lambda *call: seen.append(call)):
        attended = block.self_attn(
            hidden_states=block.layer_norm1(hidden_states), attention_mask=attention_mask, **kwargs
        )[0]
    tower.tokens = replace(tower.tokens, states_RtC=hidden_states + attended)
    if merge is not None:
        tower.tokens = merge(tower.tokens, *seen[0])
    states_RtC = tower.tokens.states_RtC
    output: Tensor = states_RtC + block.mlp(block.layer_norm2(states_RtC))
    return output
