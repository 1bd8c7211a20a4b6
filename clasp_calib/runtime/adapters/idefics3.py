"""Idefics3 and SmolVLM: tiles of a picture, then the whole of it; a tile's patches are shuffled to fewer tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.siglip import LastStateAdapter


class Idefics3Adapter(LastStateAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; each tile counts as one picture.

    A file becomes as many tiles as its processor cuts, and one of the whole, so files differ in their number of tokens.
    Tiles of a row of the batch come as ``pixel_values`` [rows, tiles, 3, Y, X], filled up with tiles of zeros, which
    the model leaves out. Frames of a video are tiles too. Pixel shuffle only moves numbers, so patches are fused before
    it.
    """

    towers: Mapping[str, str] = {"image": "vision_model"}
    ragged = True

    @property
    def tile_tokens(self) -> int:
        """The patches of a tile after pixel shuffle."""
        return int(self._side**2 // self.config.scale_factor**2)

    def language_model(self, model: nn.Module) -> nn.Module:
        """The text model."""
        return self.multimodal_model(model).get_submodule("text_model")

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """One for every tile that is not zeros.

        Raises:
            ModelError: a tile is padded, so that its tower leaves patches out.
        """
        pixels = torch.as_tensor(inputs["pixel_values"])
        real = pixels.flatten(0, 1).flatten(1).ne(0).any(1)
        mask = inputs.get("pixel_attention_mask")
        if mask is not None and not bool(torch.as_tensor(mask).flatten(0, 1)[real].bool().all()):
            raise ModelError(
                "pixel_attention_mask leaves out a part of a tile; give tiles that are filled, as the model's own "
                "processor makes them"
            )
        return [1] * int(real.sum())

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """The same of every tile."""
        return [self.tile_tokens] * len(self.rows(inputs, modality))

    def tokens_of(
        self, model: nn.Module, pictures: int, patches: int, modality: str = "image", **sizes: Tensor
    ) -> list[int]:
        """The same of every tile."""
        return [self.tile_tokens] * pictures

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """The patches of a token, as the model itself shuffles them."""
        connector: Any = self.multimodal_model(model).get_submodule("connector")
        shuffled = [connector.pixel_shuffle(tile_1P[:, :, None], self.config.scale_factor) for tile_1P in values]
        return [tokens.mean(-1).flatten() for tokens in shuffled]

    def _blank_pixels(self, fused_BTC: Tensor, map_RTC: Tensor, modality: str) -> Tensor:
        """Ones, because zeros would be left out, of a size that has a patch."""
        patch = self.config.vision_config.patch_size
        return map_RTC.new_ones(1).expand(1, len(map_RTC), 3, patch, patch)
