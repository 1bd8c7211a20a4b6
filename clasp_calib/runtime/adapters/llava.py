"""LLaVA (``LlavaForConditionalGeneration``): one layer of a CLIP or SigLIP tower through a projector."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.feature_layer import feature_layer
from clasp_calib.runtime.adapters.layout import Layout

# model_type of the tower -> tokens that it puts before the patches.
TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}


class LayerAdapter(Adapter):
    """For models that project ``hidden_states[vision_feature_layer]`` of a CLIP or SigLIP tower."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision = config.vision_config
        if vision.model_type not in TOWERS:
            raise ModelError(
                f"{config.model_type} with a {vision.model_type!r} tower is not supported; "
                f"expected one of {', '.join(TOWERS)}"
            )
        self.vision_layers: int = vision.num_hidden_layers
        self.own_layer = feature_layer(config.vision_feature_layer, self.vision_layers)
        self.class_tokens = TOWERS[vision.model_type]

    def tower_attention(self, block: nn.Module) -> nn.Module:
        """Of a layer of the encoder."""
        return block.get_submodule("self_attn")

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """Every token is a patch, or the class token of a tile."""
        return [tiles_RT.flatten() for tiles_RT in self._with_class_tokens(values, modality)]

    def _with_class_tokens(self, values: Sequence[Tensor], modality: str) -> list[Tensor]:
        """The same with a 0 before every tile whose class token is projected too."""
        heads = self.class_tokens - self._cut(modality)
        return [torch.nn.functional.pad(tiles_RP, (heads, 0)) for tiles_RP in values]

    def vision_blocks(self, model: nn.Module, modality: str = "image") -> Sequence[nn.Module]:
        """The layers of the tower's encoder."""
        layers: Any = self.vision_tower(model, modality).get_submodule("encoder.layers")
        return list(layers)

    def replace_own(self, tower: nn.Module, output: Any, fused: Tensor, call: Mapping[str, Any]) -> Any:
        """The model reads ``hidden_states[vision_feature_layer]``."""
        states, own = output.hidden_states, self.own_layer
        output.hidden_states = (*states[:own], fused, *states[own + 1 :])
        return output

    def _cut(self, modality: str) -> int:
        return 1 if self.config.vision_feature_select_strategy == "default" else 0

    def _row_tokens(self, modality: str) -> int:
        vision = self.config.vision_config
        patches: int = (vision.image_size // vision.patch_size) ** 2
        return patches + TOWERS[vision.model_type] - self._cut(modality)

    @property
    def _tile_grid(self) -> tuple[int, int]:
        """Patches of a tile.

        Raises:
            ModelError: the projector sees class tokens too, which are no cells.
        """
        if self._cut("image") != self.class_tokens:
            raise ModelError(
                "this model projects the class token too (vision_feature_select_strategy); methods that act "
                "before the decoder are written for models that project patches only"
            )
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return side, side


class LlavaAdapter(LayerAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; shapes and letters are explained there."""

    laid_out = True

    @property
    def tokens_per_image(self) -> int:
        """Every picture has the tower's patches."""
        return self._row_tokens("image")

    @property
    def patch_tokens(self) -> int:
        """The same: the projector keeps their number."""
        return self.tokens_per_image

    def layouts(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Layout]:
        """Every token is a patch."""
        grid = self._tile_grid
        return [Layout(torch.arange(grid[0] * grid[1]), 1, grid) for _ in self.rows(inputs)]
