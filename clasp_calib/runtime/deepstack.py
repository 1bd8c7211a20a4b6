"""Deepstack under pruning: visual features that a decoder adds to the outputs of its first layers.

Qwen3-VL hands its decoder a mask and features for the whole sequence. Once tokens are gone neither fits, so
under pruning they are taken out of the call, and hooks on the layers add what belongs to the tokens that are left.

B rows, S tokens, V visual tokens of all rows, N of a picture, D width of the decoder.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clasp_calib.runtime.stages import StagePrefill


class Deepstack:
    """The features of one forward; ``add`` is called with the output of every layer in turn."""

    def __init__(self, prefill: StagePrefill, features_VD: list[Tensor]) -> None:
        self._prefill = prefill
        self._features_VD = features_VD
        self._first_B = torch.tensor([0, *prefill.offered[:-1]]).cumsum(0).to(prefill.visual_BS.device)

    @staticmethod
    def taken_from(kwargs: dict[str, Any], prefill: StagePrefill) -> "Deepstack | None":
        """Take the arguments out of a decoder's call; ``None`` if it has none."""
        features = kwargs.get("deepstack_visual_embeds")
        if features is None:
            return None
        kwargs.update(deepstack_visual_embeds=None, visual_pos_masks=None)
        return Deepstack(prefill, list(features))

    def add(self, layer: int, hidden_BSD: Tensor) -> Tensor:
        """Hidden states after ``layer``, with its features added at the visual tokens that are left."""
        if layer >= len(self._features_VD):
            return hidden_BSD
        visual_BS = self._prefill.visual_BS
        features_VD = self._features_VD[layer].to(hidden_BSD.device, hidden_BSD.dtype)
        hidden_BSD = hidden_BSD.clone()
        hidden_BSD[visual_BS] = hidden_BSD[visual_BS] + features_VD[self._prefill.visual_indices(self._first_B)]
        return hidden_BSD


def with_deepstack(outputs: dict[str, Any], deepstack: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """``mm_encoder_outputs`` of one modality together with what its pictures bring to the first layers.

    Args:
        outputs: as `clasp_calib.runtime.adapters.adapter.Adapter.encoder_outputs` gives them.
        deepstack: of every such layer the features [N, D] of all pictures, as
            `clasp_calib.runtime.adapters.adapter.Adapter.deepstack` gives them; nothing is changed without any.
    """
    (output,) = outputs.values()
    if deepstack:
        output.deepstack_features = [list(features) for features in deepstack]
    return outputs
