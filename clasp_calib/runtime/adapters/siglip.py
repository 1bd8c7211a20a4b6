"""Models that project the last state of a SigLIP tower, through the norm at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.runtime.adapters.adapter import Adapter


class LastStateAdapter(Adapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; rows are pictures or tiles of one size.

    States are fused before the norm, and before whatever makes one token of several patches.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_layers: int = config.vision_config.num_hidden_layers
        self.own_layer: int = self.vision_layers

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The layers of the tower's encoder."""
        layers: Any = self.vision_tower(model, modality).get_submodule("encoder.layers")
        return list(layers)

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """Of a layer of the encoder."""
        return block.get_submodule("self_attn")

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The model reads the last state through the tower's norm."""
        norm: Any = tower.get_submodule("post_layernorm")
        output.last_hidden_state = norm(fused)
        return output

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``, as one tensor of rows."""
        outputs = super().encoder_outputs(features, modality)
        outputs[modality].pooler_output = torch.stack(list(features))
        return outputs

    @property
    def _side(self) -> int:
        """Patches of a line of a row."""
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def _row_tokens(self, modality: str) -> int:
        return self._side**2
