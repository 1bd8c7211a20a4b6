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

RATED = frozenset({1, 5, 14})
"""Layers before the default stages, whose queries and keys rate the visual tokens."""


def leave_out_idle_blocks(model: Any, read: frozenset[int] = RATED) -> None:
    """Compute the blocks of the decoder no more that add nothing; load the model anew to have them back.

    Their weights stay, so that the model is still known by its digest.

    Args:
        model: of the embedded model's architecture.
        read: layers whose queries and keys something reads, such as those before a stage of pruning; their attention
            stays.
    """
    layers: Any = adapter_for(model).language_model(model).layers
    for number, layer in enumerate(layers):
        if not layer.mlp.down_proj.weight.any():
            layer.mlp.forward = torch.zeros_like
        if number not in read and not layer.self_attn.o_proj.weight.any():
            layer.self_attn.forward = _no_attention(layer.self_attn.config, number)


@contextmanager
def without_idle_blocks() -> Iterator[None]:
    """Leave them out of every model that is loaded in this process meanwhile; only the default stages can rate."""
    whole = loading.load_model

    def load_model(*arguments: Any, **named: Any) -> tuple[Any, Any]:
        model, processor = whole(*arguments, **named)
        leave_out_idle_blocks(model)
        return model, processor

    with patch.object(loading, "load_model", load_model):
        yield


def _no_attention(config: Any, number: int) -> Callable[..., tuple[Tensor, None]]:
    """Adds nothing; the cache grows as it would."""

    def forward(hidden_states: Tensor, past_key_values: Any = None, **_: Any) -> tuple[Tensor, None]:
        if past_key_values is not None:
            rows, tokens = hidden_states.shape[:2]
            empty_BGSd = hidden_states.new_zeros(rows, config.num_key_value_heads, tokens, config.head_dim)
            past_key_values.update(empty_BGSd, empty_BGSd, number)
        return torch.zeros_like(hidden_states), None

    return forward
