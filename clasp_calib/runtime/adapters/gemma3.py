"""Gemma 3: a tower's patches are pooled to a fixed number of tokens, each of which sees its whole picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clasp_calib.common.pruning_options import INPUT
from clasp_calib.runtime.adapters.siglip import LastStateAdapter


class Gemma3Adapter(LastStateAdapter):
    """See `clasp_calib.runtime.adapters.adapter.Adapter`.

    Crops that a processor adds to a picture (``do_pan_and_scan``) are pictures of their own. Patches are fused before
    they are pooled. Most decoder layers see a window, and visual tokens see those behind them in their picture too, as
    ``token_type_ids`` say. So tokens are dropped before the decoder only.
    """

    profiles: Sequence[str] = (INPUT,)

    @property
    def tokens_per_image(self) -> int:
        """Every picture has as many."""
        return int(self.config.mm_tokens_per_image)

    def token_values(
        self, model: nn.Module, values: Sequence[Tensor], inputs: Mapping[str, Any], modality: str
    ) -> list[Tensor]:
        """Pooled by the model itself."""
        pool: Any = self.multimodal_model(model).get_submodule("multi_modal_projector.avg_pool")
        return [pool(patches_1P.view(1, self._side, self._side)).flatten() for patches_1P in values]

    def prompt_inputs(self, ids_BS: Tensor) -> dict[str, Tensor]:
        """Which tokens are visual."""
        return {"token_type_ids": (ids_BS == self.visual_token_ids["image"]).long()}

    def masks(
        self, model: nn.Module, inputs: Mapping[str, Any], visual_BT: Tensor, call: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One mask for each kind of layer, made by the model itself."""
        if inputs.get("token_type_ids") is None:
            return {}
        multimodal: Any = model
        names = ("inputs_embeds", "attention_mask", "past_key_values", "position_ids")
        made = multimodal.create_masks_for_generate(
            config=self.config, token_type_ids=visual_BT.long(), **{name: call.get(name) for name in names}
        )
        return {"attention_mask": made}
