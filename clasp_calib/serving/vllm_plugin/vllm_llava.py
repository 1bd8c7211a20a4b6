"""LLaVA-1.5 in vLLM: one layer of a CLIP tower through a projector, a fixed number of tokens a picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import llava
from vllm.multimodal import MULTIMODAL_REGISTRY

from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.serving.vllm_plugin.processing import PrunedProcessing
from clasp_calib.serving.vllm_plugin.pruned_tower import TOWER_MAPPER, PrunedTower
from clasp_calib.serving.vllm_plugin.received import received


class PrunedLlavaProcessing(PrunedProcessing, llava.LlavaMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-1.5."""


def _processor(info: Any, dummy_inputs: Any) -> Any:
    """Pixtral in LLaVA's clothes is served as vLLM serves it."""
    plain = llava._build_llava_or_pixtral_hf_processor(info, dummy_inputs)
    return PrunedLlavaProcessing(info, dummy_inputs) if type(plain) is llava.LlavaMultiModalProcessor else plain


@MULTIMODAL_REGISTRY.register_processor(
    _processor, info=llava._build_llava_or_pixtral_hf_info, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class PrunedLlava(PrunedTower, llava.LlavaForConditionalGeneration):  # type: ignore[misc]
    """The same as vLLM's, whose pictures are pruned where an artifact is served."""

    hf_to_vllm_mapper = llava.LlavaForConditionalGeneration.hf_to_vllm_mapper | TOWER_MAPPER

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if self.clasp:
            self.layouts(adapter_for(self.config), [torch.empty(1)])  # Refuses what has none.

    def embed_multimodal(self, **kwargs: object) -> Any:
        """What stays of every picture: [K, D] each."""
        numbers = received(kwargs, self.clasp)
        if self.clasp is None or numbers is None:
            return super().embed_multimodal(**kwargs)
        pixels = self._parse_and_validate_image_input(**kwargs)["pixel_values"]
        return self.prune_pictures(self.clasp, adapter_for(self.config), pixels.split(1), numbers)

    def layouts(self, adapter: Adapter, tiles: Sequence[Tensor], **sizes: Any) -> list[Layout]:
        """Every token is a patch."""
        return adapter.layouts(self, {"pixel_values": tiles})

    def packed(self, tiles_RUD: Tensor, picture: int, **sizes: Any) -> Tensor:
        """The patches of the one tile."""
        return tiles_RUD[0]
