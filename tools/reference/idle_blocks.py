"""Leave out what the embedded model computes for nothing, where thousands of its answers are measured.

The embedded model has 32 decoder layers, as LLaVA-1.5 has, and uses a quarter of them: elsewhere the last matrix of the
attention or of the MLP is zero, and the block adds exactly nothing. A measurement may leave such blocks out and find
the same numbers to the bit sooner. Nothing that times the model may.

B rows, S tokens, D width, G heads of keys, d width of a head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from clasp_calib.runtime import loading
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.attention import is_watched


def leave_out_idle_blocks(model: Any) -> None:
    """Compute the blocks of the decoder no more that add nothing; load the model anew to have them back.

    Their weights stay, so that the model is still known by its digest. Attention is computed where something watches
    its queries and keys, as what rates the visual tokens before a stage of pruning does.

    Args:
        model: of the embedded model's architecture.
    """
    layers: Any = adapter_for(model).language_model(model).layers
    for number, layer in enumerate(layers):
        if not layer.mlp.down_proj.weight.any():
            layer.mlp.forward = torch.zeros_like
        if not layer.self_attn.o_proj.weight.any():
            layer.self_attn.forward = _no_attention(layer.self_attn, number)


@contextmanager
def without_idle_blocks() -> Iterator[None]:
    """Leave them out of every model that is loaded in this process meanwhile."""
    whole = loading.load_model

    def load_model(*arguments: Any, **named: Any) -> tuple[Any, Any]:
        model, processor = whole(*arguments, **named)
        leave_out_idle_blocks(model)
        return model, processor

    with patch.object(loading, "load_model", load_model):
        yield


def _no_attention(attention: Any, number: int) -> Callable[..., tuple[Tensor, Any]]:
    """Adds nothing unless it is watched; the cache grows as it would."""
    plain, config = attention.forward, attention.config

    def forward(hidden_states: Tensor, *others: Any, past_key_values: Any = None, **more: Any) -> tuple[Tensor, Any]:
        if is_watched(attention):
            result: tuple[Tensor, Any] = plain(hidden_states, *others, past_key_values=past_key_values, **more)
            return result
        if past_key_values is not None:
            rows, tokens = hidden_states.shape[:2]
            empty_BGSd = hidden_states.new_zeros(rows, config.num_key_value_heads, tokens, config.head_dim)
            past_key_values.update(empty_BGSd, empty_BGSd, number)
        return torch.zeros_like(hidden_states), None

    return forward
