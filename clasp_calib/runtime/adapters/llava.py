"""LLaVA (``LlavaForConditionalGeneration``): one layer of a CLIP or SigLIP tower through a projector."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from clasp_calib.common.errors import ModelError

# model_type of the tower -> tokens that it puts before the patches.
TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}


class LlavaAdapter:
    """See `clasp_calib.runtime.adapters.base.Adapter`; shapes and letters are explained there."""

    def __init__(self, config: Any) -> None:
        vision = config.vision_config
        if vision.model_type not in TOWERS:
            raise ModelError(
                f"LLaVA with a {vision.model_type!r} tower is not supported; expected one of {', '.join(TOWERS)}"
            )
        if not isinstance(config.vision_feature_layer, int):
            raise ModelError(
                f"vision_feature_layer is {config.vision_feature_layer}: this projector was trained on "
                "concatenated layers, which a mixture of layers does not fit; expected a model with one layer"
            )
        self._cut = 1 if config.vision_feature_select_strategy == "default" else 0
        self.image_token_id: int = config.image_token_id
        self.vision_layers: int = vision.num_hidden_layers
        self.own_layer: int = config.vision_feature_layer % (self.vision_layers + 1)
        self.decoder_layers: int = config.text_config.num_hidden_layers
        patches = (vision.image_size // vision.patch_size) ** 2
        self.tokens_per_image: int = patches + TOWERS[vision.model_type] - self._cut

    def language_model(self, model: nn.Module) -> nn.Module:
        """The Llama (or Mistral, Qwen2, ...) text model."""
        return self._part(model, "language_model")

    def multimodal_model(self, model: nn.Module) -> nn.Module:
        """The ``LlavaModel``."""
        inner = model.model
        assert isinstance(inner, nn.Module)
        return inner

    def vision_tower(self, model: nn.Module) -> nn.Module:
        """The CLIP or SigLIP model."""
        return self._part(model, "vision_tower")

    def capture(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        """All layers of the tower without the class token, [B, L_v + 1, T, C]."""
        tower = self.vision_tower(model)
        # Its forward rather than a call: a hook that fuses the live tower must not see this.
        states = tower.forward(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        return torch.stack([state_BTC[:, self._cut :] for state_BTC in states], dim=1)

    def project(self, model: nn.Module, fused_BTC: Tensor) -> list[Tensor]:
        """Visual tokens through transformers' own ``get_image_features``, its tower replaced meanwhile."""
        multimodal: Any = self.multimodal_model(model)
        weight = next(multimodal.multi_modal_projector.parameters())
        fused_BTC = fused_BTC.to(weight.device, weight.dtype)
        # What the model cuts off again; its value is never read.
        whole_BTC = torch.cat([fused_BTC[:, : self._cut], fused_BTC], dim=1)
        with _replaced_tower(multimodal, whole_BTC):
            pixels = whole_BTC.new_zeros(1).expand(len(fused_BTC), 3, 1, 1)
            return list(multimodal.get_image_features(pixel_values=pixels, return_dict=True).pooler_output)

    def encoder_outputs(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs``."""
        return {"image": BaseModelOutputWithPooling(pooler_output=list(features))}

    def _part(self, model: nn.Module, name: str) -> nn.Module:
        return self.multimodal_model(model).get_submodule(name)


class _Recorded(nn.Module):
    """Stands in for a tower and returns one map, whichever layer is asked for."""

    def __init__(self, map_BTC: Tensor, count: int) -> None:
        super().__init__()
        self.output = BaseModelOutputWithPooling(last_hidden_state=map_BTC, hidden_states=(map_BTC,) * count)

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


@contextmanager
def _replaced_tower(multimodal: Any, map_BTC: Tensor) -> Iterator[None]:
    tower = multimodal.vision_tower
    multimodal.vision_tower = _Recorded(map_BTC, multimodal.config.vision_config.num_hidden_layers + 1)
    try:
        yield
    finally:
        multimodal.vision_tower = tower
