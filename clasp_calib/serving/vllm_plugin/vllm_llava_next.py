"""LLaVA-NeXT in vLLM: pictures are cut into tiles, whose tokens are packed line by line."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
from vllm.model_executor.models import llava_next
from vllm.multimodal import MULTIMODAL_REGISTRY

from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.serving.vllm_plugin.processing import PrunedProcessing
from clasp_calib.serving.vllm_plugin.pruned_tower import TOWER_MAPPER, PrunedTiles

PACKING = "spatial_unpad"
_pack = llava_next.LlavaNextForConditionalGeneration._merge_image_patch_embeddings


class PrunedLlavaNextProcessing(PrunedProcessing, llava_next.LlavaNextMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-NeXT."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedLlavaNextProcessing, info=llava_next.LlavaNextProcessingInfo, dummy_inputs=llava_next.LlavaDummyInputsBuilder
)
class PrunedLlavaNext(PrunedTiles, llava_next.LlavaNextForConditionalGeneration):  # type: ignore[misc]
    """The same as vLLM's, whose pictures are pruned where an artifact is served."""

    hf_to_vllm_mapper = llava_next.LlavaNextForConditionalGeneration.hf_to_vllm_mapper | TOWER_MAPPER

    def layouts(self, adapter: Adapter, tiles: Sequence[Tensor], **sizes: Any) -> list[Layout]:
        """Packed by vLLM's model, from tokens that are the indices of their patches."""
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        width_1 = SimpleNamespace(config=self.config, image_newline=-torch.ones(1))
        found = []
        for picture, size in zip(tiles, sizes["image_sizes"], strict=True):
            cells_RU1 = torch.arange(len(picture) * side**2, dtype=torch.float32).view(len(picture), -1, 1)
            cell_N = _pack(width_1, size, cells_RU1, strategy=PACKING)[:, 0].long()
            cut = get_anyres_image_grid_shape(size.tolist(), self.config.image_grid_pinpoints, vision.image_size)
            found.append(Layout(cell_N, len(picture), (side, side), cut=cut))
        return found

    def packed(self, tiles_RUD: Tensor, picture: int, **sizes: Any) -> Tensor:
        """As vLLM's model packs them."""
        whole_ND: Tensor = self._merge_image_patch_embeddings(
            sizes["image_sizes"][picture], tiles_RUD, strategy=PACKING
        )
        return whole_ND
