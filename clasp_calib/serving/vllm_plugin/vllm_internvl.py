"""InternVL (the port in transformers) in vLLM: tiles whose patches are shuffled to a quarter of the tokens."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models import interns1
from vllm.multimodal import MULTIMODAL_REGISTRY

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.layout import Layout
from clasp_calib.serving.vllm_plugin.processing import PrunedProcessing
from clasp_calib.serving.vllm_plugin.pruned_tower import PrunedTower
from clasp_calib.serving.vllm_plugin.received import received


class PrunedInternVLProcessing(PrunedProcessing, interns1.InternS1MultiModalProcessor):  # type: ignore[misc]
    """Of InternVL; videos stay whole."""


@MULTIMODAL_REGISTRY.register_processor(
    PrunedInternVLProcessing, info=interns1.InternS1ProcessingInfo, dummy_inputs=interns1.InternS1DummyInputsBuilder
)
class PrunedInternVL(PrunedTower, interns1.InternS1ForConditionalGeneration):  # type: ignore[misc]
    """The same as vLLM's, whose pictures are pruned where an artifact is served."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if self.clasp and self.config.vision_feature_layer != -1:
            raise ModelError(
                f"this model projects layer {self.config.vision_feature_layer} of its tower, and vLLM the last one; "
                "serve one that projects the last layer"
            )

    def embed_multimodal(self, **kwargs: object) -> Any:
        """What stays of every picture: [K, D] each."""
        numbers = received(kwargs, self.clasp)
        if self.clasp is None or numbers is None:
            return super().embed_multimodal(**kwargs)
        inputs = self._parse_and_validate_image_input(**kwargs)
        counts = torch.as_tensor(inputs["num_patches"]).flatten().tolist()
        return self.prune_pictures(self.clasp, adapter_for(self.config), inputs["pixel_values"].split(counts), numbers)

    def states(self, pixels: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """See `PrunedTower`."""
        state_RTC, _ = self.vision_tower.embeddings(pixels)
        found = {0: state_RTC}
        for number, layer in enumerate(self.vision_tower.encoder.layer[: max(layers)], start=1):
            state_RTC = layer(state_RTC)
            if number in layers:
                found[number] = state_RTC
        return found

    def attended(self, block: int, entering_RTC: Tensor) -> tuple[Tensor, Tensor, float]:
        """See `PrunedTower`; vLLM has all heads on every rank."""
        layer = self.vision_tower.encoder.layer[block]
        attention, normed_RTC = layer.attention, layer.layernorm_before(entering_RTC)
        query_RTC, key_RTC = attention.q_proj(normed_RTC), attention.k_proj(normed_RTC)
        if attention.qk_normalization:
            query_RTC, key_RTC = attention.q_norm(query_RTC), attention.k_norm(key_RTC)
        query, key = (of.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for of in (query_RTC, key_RTC))
        return query, key, attention.scale

    def projected(self, states_UC: Tensor, rows: int) -> Tensor:
        """Through the tower's last norm, shuffled."""
        map_RUC = self.vision_tower.layernorm(states_UC.view(rows, -1, states_UC.shape[-1]))
        tokens: Tensor = self.multi_modal_projector(self._shuffled(map_RUC))
        return tokens

    def layouts(self, adapter: Adapter, tiles: Sequence[Tensor], **sizes: Any) -> list[Layout]:
        """How many tokens there are: of each several patches."""
        return [
            Layout(torch.arange(tokens), 1, (1, tokens))
            for tokens in (len(of) * int(self.num_image_token) for of in tiles)
        ]

    def packed(self, tiles_RUD: Tensor, picture: int, **sizes: Any) -> Tensor:
        """Tile by tile."""
        return tiles_RUD.flatten(0, 1)

    def spread(self, rows: int, picture: int, **sizes: Any) -> Callable[[Tensor], Tensor]:
        """The mean over the patches of a token."""
        return lambda values_U: self._shuffled(values_U.view(rows, -1, 1)).mean(-1).flatten()

    def _shuffled(self, map_RUC: Tensor) -> Tensor:
        side = math.isqrt(map_RUC.shape[1])
        map_RhwC = map_RUC.reshape(len(map_RUC), side, side, -1)
        shuffled: Tensor = self.pixel_shuffle(map_RhwC, scale_factor=self.downsample_ratio)
        return shuffled.flatten(1, 2)
