"""What layers cost, in FLOPs: twice the multiply-adds."""

from collections.abc import Sequence
from typing import Any


def decoder_flops(visual_tokens: Sequence[int], hidden: int, mlp: int, text_tokens: int = 0) -> float:
    """FLOPs of the decoder layers for one prefill, each as `layer_flops` counts them.

    Args:
        visual_tokens: that each layer works on.
        hidden: width ``d`` of the decoder.
        mlp: width ``m`` of its MLP.
        text_tokens: tokens that stand beside the visual ones in every layer.
    """
    return sum(layer_flops(n + text_tokens, hidden, mlp) for n in visual_tokens)


def layer_flops(tokens: int, hidden: int, mlp: int) -> float:
    """FLOPs of one decoder layer: twice SparseVLM's multiply-adds, ``4 n d^2 + 2 n^2 d + 3 n d m``.

    Args:
        tokens: ``n``.
        hidden: width ``d``.
        mlp: width ``m`` of its MLP.
    """
    return _attention(tokens, hidden) + _mlp(tokens, hidden, mlp, matrices=3)


def tower_flops(config: Any, attending: Sequence[int], going_on: Sequence[int]) -> float:
    """FLOPs of the blocks of a CLIP tower, whose MLP has no gate.

    Args:
        config: of the tower.
        attending: tokens that enter each block.
        going_on: tokens that each block's MLP is left with.
    """
    attention = sum(_attention(n, config.hidden_size) for n in attending)
    return attention + sum(_mlp(n, config.hidden_size, config.intermediate_size, matrices=2) for n in going_on)


def _attention(tokens: int, hidden: int) -> float:
    return float(2 * (4 * tokens * hidden**2 + 2 * tokens**2 * hidden))


def _mlp(tokens: int, hidden: int, mlp: int, matrices: int) -> float:
    return float(2 * matrices * tokens * hidden * mlp)
