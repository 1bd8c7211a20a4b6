"""InternVL (the port in transformers): a tile's patches are shuffled to a quarter of the tokens and projected."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.feature_layer import feature_layer


class InternVLAdapter(Adapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; each tile counts as one picture.

    A file becomes as many tiles as its processor cuts, so files differ in their number of tokens. A video is a tile for
    each frame, which its processor numbers and gives as images. Pixel shuffle only moves numbers, so patches are fused
    before it.
    """

    ragged = True
    class_tokens = 1

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision = config.vision_config
        self.vision_layers: int = vision.num_hidden_layers
        self.own_layer = feature_layer(config.vision_feature_layer, self.vision_layers)

    @property
    def films(self) -> str | None:
        """Its frames are images."""
        return "image"

    @property
    def tile_tokens(self) -> int:
        """The patches of a tile after pixel shuffle."""
        return int(self._patches * self.config.downsample_ratio**2)

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """The same of every tile."""
        return [self.tile_tokens] * len(self.rows(inputs, modality))

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The layers of the tower's encoder."""
        layers: Any = self.vision_tower(model, modality).get_submodule("encoder.layer")
        return list(layers)

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """Of a layer of the encoder."""
        return block.get_submodule("attention")

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """The patches of a token, as the model itself shuffles them."""
        multimodal: Any = self.multimodal_model(model)
        side = math.isqrt(self._patches)
        maps = [tile_1P.view(1, side, side, 1) for tile_1P in values]
        shuffled = [multimodal.pixel_shuffle(map_1hw1, self.config.downsample_ratio) for map_1hw1 in maps]
        return [tokens.mean(-1).flatten() for tokens in shuffled]

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The model reads the last state through the tower's norm, or any other as it is."""
        if self.config.vision_feature_layer == -1:
            norm: Any = tower.get_submodule("layernorm")
            output.last_hidden_state = norm(fused)
        else:
            states, own = output.hidden_states, self.own_layer
            output.hidden_states = (*states[:own], fused, *states[own + 1 :])
        return output

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``, as one tensor of tiles."""
        outputs = super().encoder_outputs(features, modality)
        outputs[modality].pooler_output = torch.stack(list(features))
        return outputs

    @property
    def _patches(self) -> int:
        vision = self.config.vision_config
        (height, width), (down, right) = vision.image_size, vision.patch_size
        return int((height // down) * (width // right))

    def _cut(self, modality: str) -> int:
        return 1 if self.config.vision_feature_select_strategy == "default" else 0

    def _row_tokens(self, modality: str) -> int:
        return self._patches + 1 - self._cut(modality)
