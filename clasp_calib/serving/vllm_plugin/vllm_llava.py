"""LLaVA-1.5 in vLLM: one layer of a CLIP tower through a projector, a fixed number of tokens a picture.

B pictures, T tokens of the tower, its class token first, U patches, N visual tokens, K of them kept, R tiles of a
picture, one here, H heads of width d, C width of the tower, D of the decoder.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import llava
from vllm.model_executor.models.utils import WeightsMapper
from vllm.multimodal import MULTIMODAL_REGISTRY

from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.encoding import Encoded, TowerAttention, what_goes_on
from clasp_calib.serving.served import Served, blocks_of
from clasp_calib.serving.vllm_plugin.processing import ENTRY, PrunedProcessing
from clasp_calib.serving.vllm_plugin.ranks import all_heads


class PrunedLlavaProcessing(PrunedProcessing, llava.LlavaMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-1.5."""


def _processor(info: Any, dummy_inputs: Any) -> Any:
    """Pixtral in LLaVA's clothes is served as vLLM serves it."""
    plain = llava._build_llava_or_pixtral_hf_processor(info, dummy_inputs)
    return PrunedLlavaProcessing(info, dummy_inputs) if type(plain) is llava.LlavaMultiModalProcessor else plain


@MULTIMODAL_REGISTRY.register_processor(
    _processor, info=llava._build_llava_or_pixtral_hf_info, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class PrunedLlava(llava.LlavaForConditionalGeneration):  # type: ignore[misc]
    """vLLM's own model where no artifact is served."""

    # transformers 5 saves a tower without "vision_model.", which vLLM's parameters have.
    hf_to_vllm_mapper = llava.LlavaForConditionalGeneration.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_prefix={
            f"{before}vision_tower.{part}": f"vision_tower.vision_model.{part}"
            for before in ("", "model.")
            for part in ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
        }
    )

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        served, own = Served.of(config), config.vision_feature_layer
        if served:  # vLLM builds a tower up to the layer that is projected, and a mixture may reach further.
            config.vision_feature_layer = max(adapter_for(config).own_layer, *served.layers)
        try:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        finally:
            config.vision_feature_layer = own
        self.clasp, self.adapter = served, adapter_for(config) if served else None
        if self.adapter:
            self.adapter.layouts(self, {"pixel_values": torch.empty(1)})  # Refuses what has none.

    def embed_multimodal(self, **kwargs: object) -> Any:
        """What stays of every picture: [K, D] each."""
        entries = kwargs.pop(ENTRY, None)
        served, adapter = self.clasp, self.adapter
        if served is None or adapter is None or entries is None or kwargs.get("pixel_values") is None:
            return super().embed_multimodal(**kwargs)
        head = adapter.class_tokens
        numbers: list[int] = torch.as_tensor(entries).flatten().tolist()
        wanted = [served.entries[number] for number in numbers]
        blocks = blocks_of(wanted, adapter)
        layers = sorted({*blocks, *(layer for entry in wanted for layer in entry.layers)})
        pixels = self._parse_and_validate_image_input(**kwargs)["pixel_values"]
        parts = self.vision_tower(pixels, select_layers=layers, feature_select_strategy="full").chunk(len(layers), -1)
        states = dict(zip(layers, parts, strict=True))
        seen = {block: self._attended(block, states[block]) for block in blocks}
        layouts = adapter.layouts(self, {"pixel_values": pixels})
        stays = []
        for picture, (number, entry) in enumerate(zip(numbers, wanted, strict=True)):
            mixed_TC = served.mixed({layer: states[layer][picture] for layer in entry.layers}, number)
            attention = {
                block: TowerAttention(
                    query[picture : picture + 1], key[picture : picture + 1], scaling, head, 1, layouts[picture]
                )
                for block in entry.blocks(adapter)
                for query, key, scaling in [seen[block]]
            }
            states_UC, class_RC = mixed_TC[head:], mixed_TC[:head] if head else None
            image = Encoded(
                self._projected(states_UC), layouts[picture], states_UC, class_RC, attention, self._projected
            )
            stays.append(what_goes_on(image, served.chosen(image, adapter, number)))
        return stays

    def _projected(self, states_UC: Tensor) -> Tensor:
        features_ND: Tensor = self.multi_modal_projector(states_UC)
        return features_ND

    def _attended(self, block: int, entering_BTC: Tensor) -> tuple[Tensor, Tensor, float]:
        """Queries and keys of a block, float32 [B, H, T, d], made once more, and the factor of their logits."""
        layer = self.vision_tower.vision_model.encoder.layers[block]
        attention = layer.self_attn
        qkv, _ = attention.qkv_proj(layer.layer_norm1(entering_BTC))
        query, key, _ = (part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        return all_heads(query).float(), all_heads(key).float(), attention.scale
