"""Qwen2.5-VL in vLLM: patches of a picture merged two by two, as many tokens as it has, positions of three axes.

Pictures are pruned, videos are not. The tower takes pictures one by one: a server that counts what they leave has room
for many more of them than their patches have.

P patches of a picture, C width of the tower, N tokens that its merger makes of them, K of them kept, D width of the
decoder, H heads of width d, S tokens of a prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from vllm.model_executor.models import qwen2_5_vl
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.encoding import Encoded, TowerAttention, what_goes_on
from clasp_calib.serving.served import ServedArtifact
from clasp_calib.serving.vllm_plugin.cpu_positions import ask_for_positions
from clasp_calib.serving.vllm_plugin.mrope import CHANNELS, laid_out, placed, with_places
from clasp_calib.serving.vllm_plugin.processing import PrunedProcessing
from clasp_calib.serving.vllm_plugin.ranks import all_heads
from clasp_calib.serving.vllm_plugin.received import ENTRY, received
from clasp_calib.serving.vllm_plugin.watched_tower import mixed_states


class PrunedQwenProcessing(PrunedProcessing):
    """Refuses prompts that end in a picture, behind which the answer would not begin where it should."""

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """See vLLM."""
        made = super().apply(inputs, timing_ctx)
        asked = self.clasp and ENTRY not in inputs.hf_processor_mm_kwargs
        if asked and made["prompt_token_ids"][-1:] == [self._visual_token]:
            raise ValueError("the prompt ends in a picture; expected text behind it, as every chat template puts there")
        return made


class PrunedQwen:
    """Mixed into a model of vLLM's, before it. Without an artifact it does nothing."""

    config: Any
    visual: Any
    clasp: ServedArtifact | None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """As vLLM's model.

        Raises:
            ModelError: an artifact is to be served by a server whose parts do not all learn positions.
        """
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.clasp = ServedArtifact.of(vllm_config.model_config.hf_config)
        if self.clasp is None:
            return
        self.adapter = adapter_for(vllm_config.model_config.hf_config)
        ask_for_positions()
        if vllm_config.parallel_config.pipeline_parallel_size > 1 or vllm_config.speculative_config:
            raise ModelError(
                "an artifact of this model is not served with pipeline parallelism or speculative decoding, where part "
                "of the server does not learn the positions of what is kept; leave them out"
            )

    def embed_multimodal(self, **kwargs: object) -> Any:
        """What stays of every picture: [K, D + CHANNELS] each."""
        numbers = received(kwargs, self.clasp)
        if self.clasp is None or numbers is None:
            return super().embed_multimodal(**kwargs)  # type: ignore[misc]
        given = self._parse_and_validate_image_input(**kwargs)  # type: ignore[attr-defined]
        grids: Tensor = given["image_grid_thw"].cpu()
        pictures = given["pixel_values"].split(grids.prod(-1).tolist())
        return tuple(self._pruned(*picture) for picture in zip(pictures, grids, numbers, strict=True))

    def _pruned(self, pixels_PX: Tensor, grid_3: Tensor, number: int) -> Tensor:
        served, adapter = self.clasp, self.adapter
        assert served is not None
        entry = served.entries[number]
        blocks = entry.blocks(adapter)

        def mix(states: Mapping[int, Tensor]) -> Tensor:
            return served.mixed({layer: states[layer][:, 0] for layer in entry.layers}, number)[:, None]

        with mixed_states(self.visual, {*entry.layers, *blocks}, mix) as (states, told):
            merged = self.visual(pixels_PX, grid_3[None].tolist())
        (layout,) = adapter.layouts(self, {"image_grid_thw": grid_3[None]})  # type: ignore[arg-type]
        patches = len(pixels_PX) // layout.cells
        attention = {
            block: TowerAttention(*self._attended(block, states[block], told[block]), 0, patches, layout)
            for block in blocks
        }
        width = self.config.vision_config.out_hidden_size
        features_ND = merged[:, :width]
        image = Encoded(features_ND, layout, features_ND, None, attention, lambda states: states)
        kept = served.chosen(image, adapter, number)
        # Every token in its own place, whose position it has.
        place_K, order_K = kept.place_T.sort()
        features_KD = what_goes_on(image, kept)[order_K].to(merged.dtype)
        return with_places(torch.cat([features_KD, merged[place_K, width:]], dim=1), place_K, layout.grid[1])

    def _attended(self, block: int, entering_P1C: Tensor, told: Mapping[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Queries and keys of a block, float32 [1, H, P, d], made once more, and the factor of their logits."""
        layer = self.visual.blocks[block]
        attention = layer.attn
        width = attention.hidden_size_per_attention_head
        qkv, _ = attention.qkv(layer.norm1(entering_P1C))
        seen_2PHd = qkv[:, 0].unflatten(-1, (3, -1, width))[:, :2].transpose(0, 1).contiguous()
        seen_2PHd = attention.apply_rotary_emb(seen_2PHd, told["rotary_pos_emb_cos"], told["rotary_pos_emb_sin"])
        query_1HPd, key_1HPd = (all_heads(seen_PHd.transpose(0, 1)[None]).float() for seen_PHd in seen_2PHd)
        return query_1HPd, key_1HPd, width**-0.5

    def _postprocess_image_embeds_evs(self, image_embeds_split: Sequence[Tensor], image_input: Any) -> Any:
        if self.clasp is None:
            return super()._postprocess_image_embeds_evs(image_embeds_split, image_input)  # type: ignore[misc]
        columns = image_input["image_grid_thw"][:, 2] // self.config.vision_config.spatial_merge_size
        return tuple(
            with_places(features_ND, torch.arange(len(features_ND), device=features_ND.device), number)
            for features_ND, number in zip(image_embeds_split, columns.tolist(), strict=True)
        )

    def _postprocess_video_embeds_evs(self, video_embeds_split: Sequence[Tensor], video_input: Any) -> Any:
        if self.clasp is None:
            return super()._postprocess_video_embeds_evs(video_embeds_split, video_input)  # type: ignore[misc]
        return tuple(pad(features_ND, (0, CHANNELS)) for features_ND in video_embeds_split)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """See `clasp_calib.serving.vllm_plugin.mrope.laid_out`."""
        lay_out = super().get_mrope_input_positions  # type: ignore[misc]
        if self.clasp is None:
            positions: tuple[Tensor, int] = lay_out(input_tokens, mm_features)
            return positions
        merged: int = self.config.vision_config.spatial_merge_size**2

        def whole(feature: Any) -> int:
            if feature.modality != "image":
                length: int = feature.mm_position.length
                return length
            patches: int = feature.data["image_grid_thw"].data.prod().item()
            return patches // merged

        return laid_out(input_tokens, mm_features, whole, lay_out)

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """See `clasp_calib.serving.vllm_plugin.mrope.placed`; and how far what is generated is ahead."""
        if self.clasp is None:
            own: tuple[Sequence[Tensor], Tensor, int]
            own = super().recompute_mrope_positions(  # type: ignore[misc]
                input_ids, multimodal_embeddings, mrope_positions, num_computed_tokens
            )
            return own
        config = self.config
        with gpu_sync_allowed():
            ids_S = torch.as_tensor(input_ids, device=mrope_positions.device)
            features, positions_3S = placed(
                ids_S,
                multimodal_embeddings,
                mrope_positions,
                num_computed_tokens,
                config.image_token_id,
                config.video_token_id,
            )
            return features, positions_3S, int(positions_3S.max()) + 1 - len(ids_S)


class PrunedQwen25Processing(PrunedQwenProcessing, qwen2_5_vl.Qwen2_5_VLMultiModalProcessor):  # type: ignore[misc]
    """Of Qwen2.5-VL."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedQwen25Processing,
    info=qwen2_5_vl.Qwen2_5_VLProcessingInfo,
    dummy_inputs=qwen2_5_vl.Qwen2_5_VLDummyInputsBuilder,
)
class PrunedQwen25VL(PrunedQwen, qwen2_5_vl.Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """The same as vLLM's, whose pictures are pruned where an artifact is served."""
