"""LLaVA-OneVision in vLLM: as LLaVA-NeXT, but a grid that is too large is resampled, so that tokens are no patches."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import llava_onevision
from vllm.multimodal import MULTIMODAL_REGISTRY

from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.serving.vllm_plugin.processing import PrunedProcessing
from clasp_calib.serving.vllm_plugin.pruned_tower import TOWER_MAPPER, PrunedTiles
from clasp_calib.serving.vllm_plugin.vllm_llava_next import PACKING

_pack = llava_onevision.LlavaOnevisionForConditionalGeneration._merge_image_patch_embeddings


class PrunedOnevisionProcessing(PrunedProcessing, llava_onevision.LlavaOnevisionMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-OneVision; videos stay whole."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedOnevisionProcessing,
    info=llava_onevision.LlavaOnevisionProcessingInfo,
    dummy_inputs=llava_onevision.LlavaOnevisionDummyInputsBuilder,
)
class PrunedOnevision(PrunedTiles, llava_onevision.LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """The same as vLLM's, whose pictures are pruned where an artifact is served."""

    hf_to_vllm_mapper = llava_onevision.LlavaOnevisionForConditionalGeneration.hf_to_vllm_mapper | TOWER_MAPPER

    def layouts(self, adapter: Adapter, tiles: Sequence[Tensor], **sizes: Any) -> list[Layout]:
        """How many tokens there are; which patches they show is not known of all."""
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        found = []
        for picture, of in enumerate(tiles):
            tokens = len(self._spread(torch.zeros(len(of), patches, 1), picture, **sizes))
            found.append(Layout(torch.arange(tokens), 1, (1, tokens)))
        return found

    def packed(self, tiles_RUD: Tensor, picture: int, **sizes: Any) -> Tensor:
        """As vLLM's model packs them."""
        size, newline = sizes["image_sizes"][picture], self.image_newline
        whole_ND: Tensor = self._merge_image_patch_embeddings(size, tiles_RUD, image_newline=newline, strategy=PACKING)
        return whole_ND

    def spread(self, rows: int, picture: int, **sizes: Any) -> Callable[[Tensor], Tensor]:
        """As tokens are packed and resampled; those that end lines get 0."""
        return lambda values_U: self._spread(values_U.view(rows, -1, 1), picture, **sizes)[:, 0].clamp(min=0)

    def _spread(self, values_RU1: Tensor, picture: int, **sizes: Any) -> Tensor:
        newline = -values_RU1.new_ones(1)
        width_1 = SimpleNamespace(config=self.config, image_newline=newline)
        spread_N1: Tensor = _pack(
            width_1, sizes["image_sizes"][picture], values_RU1, image_newline=newline, strategy=PACKING
        )
        return spread_N1
