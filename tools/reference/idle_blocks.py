"""Leave out what the embedded model computes for nothing, where thousands of its answers are measured.

The embedded model has 32 decoder layers, as LLaVA-1.5 has, and uses a quarter of them: elsewhere the last matrix of the
attention or of the MLP is zero, and the block adds exactly nothing. A measurement may leave such blocks out and find
the same numbers to the bit sooner. Nothing that times the model may.

B rows, S tokens, D width, G heads of keys, d width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.runtime.adapters import adapter_for


class _NoMLP(nn.Module):
    def forward(self, hidden_BSD: Tensor) -> Tensor:
        return torch.zeros_like(hidden_BSD)


class _NoAttention(nn.Module):
    """Adds nothing; the cache grows as it would."""

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.config, self.layer_idx = replaced.config, replaced.layer_idx

    def forward(self, hidden_states: Tensor, past_key_values: Any = None, **_: Any) -> tuple[Tensor, None]:
        if past_key_values is not None:
            rows, tokens = hidden_states.shape[:2]
            heads, width = self.config.num_key_value_heads, self.config.head_dim
            empty_BGSd = hidden_states.new_zeros(rows, heads, tokens, width)
            past_key_values.update(empty_BGSd, empty_BGSd, self.layer_idx)
        return torch.zeros_like(hidden_states), None


def leave_out_idle_blocks(model: Any, read: frozenset[int]) -> None:
    """Take the blocks of the decoder out that add nothing; load the model anew to have them back.

    Args:
        model: of the embedded model's architecture.
        read: layers whose queries and keys something reads, such as those before a stage of pruning; their attention
            stays.
    """
    layers: Any = adapter_for(model).language_model(model).layers
    for number, layer in enumerate(layers):
        if not layer.mlp.down_proj.weight.any():
            layer.mlp = _NoMLP()
        if number not in read and not layer.self_attn.o_proj.weight.any():
            layer.self_attn = _NoAttention(layer.self_attn)
