"""Run a vision tower once for a picture that thousands of answers are about.

A comparison shows one picture to every method, and the tower computes the same for all that do not change it. It may
remember what its attention and MLPs gave: what they are given is compared to the bit, so that a method that merges
tokens, or shows another picture, computes anew. Nothing that times the model may.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.attention import is_watched


def remember_tower(model: Any) -> None:
    """Keep what the parts of a CLIP tower gave last, for the same states; load the model anew to end it.

    Args:
        model: in evaluation mode, of an architecture whose tower is a CLIP.
    """
    blocks: Any = adapter_for(model).vision_blocks(model)
    for block in blocks:
        block.self_attn.forward = _remembering(block.self_attn.forward, partial(is_watched, block.self_attn))
        block.mlp.forward = _remembering(block.mlp.forward, lambda: False)


def _remembering(forward: Callable[..., Any], watched: Callable[[], bool]) -> Callable[..., Any]:
    """Gives what it gave before for the same states, unless somebody watches, who has to see it happen."""
    before: Tensor | None = None
    gave: Any = None

    def remembered(hidden_states: Tensor, **more: Any) -> Any:
        nonlocal before, gave
        if watched() or any(isinstance(of, Tensor) for of in more.values()):
            return forward(hidden_states, **more)
        if before is None or not torch.equal(before, hidden_states):
            before, gave = hidden_states.clone(), forward(hidden_states, **more)
        return gave

    return remembered
