"""LLaVA-NeXT and LLaVA-OneVision: a picture is cut into tiles, whose tokens are packed to one ragged map."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, image_size_to_num_patches

from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.runtime.adapters.llava import LayerAdapter


class LlavaNextAdapter(LayerAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; rows are tiles, and tokens at line ends are visual too."""

    ragged = True
    laid_out = True
    size_names: Mapping[str, Sequence[str]] = {"image": ("image_sizes",), "video": ()}

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Tiles of every picture."""
        return [
            image_size_to_num_patches(
                image_size=size,
                grid_pinpoints=self.config.image_grid_pinpoints,
                patch_size=self.config.vision_config.image_size,
            )
            for size in inputs["image_sizes"]
        ]

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Packed by the model itself, from tokens of width 1."""
        tiles = [torch.zeros(rows, self._row_tokens(modality), 1) for rows in self.rows(inputs, modality)]
        return [len(packed_N1) for packed_N1 in self._pack(model, tiles, inputs["image_sizes"])]

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """Packed by the model itself."""
        tiles = [tiles_RT[:, :, None] for tiles_RT in self._with_class_tokens(values, modality)]
        packed = self._pack(model, tiles, inputs["image_sizes"])
        return [packed_N1[:, 0].clamp(min=0) for packed_N1 in packed]

    def layouts(self, model: nn.Module, inputs: Mapping[str, Any]) -> list[Layout]:
        """Packed by the model itself, from tokens that are the indices of their patches."""
        grid, rows = self._tile_grid, self.rows(inputs)
        patches = grid[0] * grid[1]
        tiles = [torch.arange(count * patches, dtype=torch.float32).view(count, patches, 1) for count in rows]
        packed = self._pack(model, tiles, inputs["image_sizes"])
        pinpoints, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        cuts = [get_anyres_image_grid_shape(size, pinpoints, side) for size in inputs["image_sizes"]]
        return [
            Layout(cell_N1[:, 0].long(), count, grid, cut=cut)
            for cell_N1, count, cut in zip(packed, rows, cuts, strict=True)
        ]

    def _pack(self, model: nn.Module, tiles: Sequence[Tensor], image_sizes: Tensor) -> list[Tensor]:
        """Tokens of width 1, with -1 at line ends."""
        multimodal: Any = self.multimodal_model(model)
        strategy = self.config.vision_feature_select_strategy
        newline = -tiles[0].new_ones(1)
        packed, _ = multimodal.pack_image_features(tiles, image_sizes, strategy, image_newline=newline)
        return list(packed)


class LlavaOnevisionAdapter(LlavaNextAdapter):
    """The same with videos, whose frames are pooled, and with a grid that is shrunk where it is large."""

    laid_out = False  # a grid that is too large is resampled, so that tokens are no longer patches
    towers: Mapping[str, str] = {"image": "vision_tower", "video": "vision_tower"}
    pixel_names: Mapping[str, str] = {"image": "pixel_values", "video": "pixel_values_videos"}

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Tiles of every picture, one where several stand in a prompt; frames of every video."""
        if modality == "video":
            videos = inputs["pixel_values_videos"]
            return [videos.shape[1]] * len(videos)
        together = inputs.get("batch_num_images")
        tiles = super().rows(inputs, modality)
        if together is None:
            return tiles
        alone = [int(count) == 1 for count in together for _ in range(int(count))]
        return [count if one else 1 for count, one in zip(tiles, alone, strict=True)]

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """As packed; of a video the frames at half their width and height, and one token at the end."""
        if modality == "image":
            return super().tokens(model, inputs, modality)
        vision = self.config.vision_config
        side = -(-(vision.image_size // vision.patch_size) // 2)
        return [frames * side**2 + 1 for frames in self.rows(inputs, modality)]

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """Packed, or pooled, by the model itself; the token at the end of a video is none of its frames."""
        if modality == "image":
            return super().token_values(model, values, inputs, modality)
        multimodal: Any = self.multimodal_model(model)
        pooled = [multimodal.apply_pooling(frames_RP[:, :, None]).flatten() for frames_RP in values]
        return [torch.nn.functional.pad(values_N, (0, 1)) for values_N in pooled]

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``; videos come as one tensor."""
        outputs = super().encoder_outputs(features, modality)
        if modality == "video":
            outputs[modality].pooler_output = torch.stack(list(features))
        return outputs

    def _pack(self, model: nn.Module, tiles: Sequence[Tensor], image_sizes: Tensor) -> list[Tensor]:
        multimodal: Any = self.multimodal_model(model)
        ratio = self.config.vision_aspect_ratio
        packed, _ = multimodal.pack_image_features(
            tiles, image_sizes, image_newline=-tiles[0].new_ones(1), vision_aspect_ratio=ratio
        )
        return list(packed)
