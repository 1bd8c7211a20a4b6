"""Video-LLaVA: two towers, one for images and one for videos, of which the latter keeps its class tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.runtime.adapters.llava import LayerAdapter


class VideoLlavaAdapter(LayerAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`; rows of a video are its frames.

    A video has several times the tokens of an image, so the number is not fixed.
    """

    ragged = True

    towers: Mapping[str, str] = {"image": "image_tower", "video": "video_tower"}
    pixel_names: Mapping[str, str] = {"image": "pixel_values_images", "video": "pixel_values_videos"}

    def rows(self, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Frames of every video."""
        pixels = inputs[self.pixel_names[modality]]
        return [pixels.shape[1] if modality == "video" else 1] * len(pixels)

    def tokens(self, model: nn.Module, inputs: Mapping[str, Any], modality: str = "image") -> list[int]:
        """Tokens of all frames."""
        return [rows * self._row_tokens(modality) for rows in self.rows(inputs, modality)]

    def encoder_outputs(self, features: Sequence[Tensor], modality: str = "image") -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``, as one tensor of images or frames."""
        outputs = super().encoder_outputs(features, modality)
        whole_SD = torch.cat(list(features))
        outputs[modality].pooler_output = whole_SD.view(-1, self._row_tokens(modality), whole_SD.shape[-1])
        return outputs

    def _cut(self, modality: str) -> int:
        return 0 if modality == "video" else super()._cut(modality)

    def _pictures(self, pooled: Any, pictures: int) -> list[Tensor]:
        return list(pooled.reshape(pictures, -1, pooled.shape[-1]))
