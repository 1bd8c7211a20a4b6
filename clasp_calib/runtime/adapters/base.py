"""What the runtime asks of an architecture.

B pictures, T patch tokens that the projector receives, C width of the tower, N visual tokens, D width of the
decoder.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn


class Adapter(Protocol):
    """Made from a configuration; every method takes the model, which the adapter does not keep."""

    @property
    def image_token_id(self) -> int:
        """The id that stands for one visual token in ``input_ids``."""
        ...

    @property
    def tokens_per_image(self) -> int:
        """N, the visual tokens of one picture."""
        ...

    @property
    def vision_layers(self) -> int:
        """L_v, the blocks of the tower; its ``hidden_states`` are 0..L_v, 0 being the embeddings."""
        ...

    @property
    def own_layer(self) -> int:
        """The entry of ``hidden_states`` that the unmodified model projects, counted from 0."""
        ...

    @property
    def decoder_layers(self) -> int:
        """Decoder layers of the language model."""
        ...

    def language_model(self, model: nn.Module) -> nn.Module:
        """The text model: it has ``layers``, ``rotary_emb`` and ``config``."""
        ...

    def multimodal_model(self, model: nn.Module) -> nn.Module:
        """The module whose forward is given ``input_ids`` together with pictures or their features."""
        ...

    def vision_tower(self, model: nn.Module) -> nn.Module:
        """The module whose output has ``hidden_states``."""
        ...

    def capture(self, model: nn.Module, pixel_values: Tensor) -> Tensor:
        """Patch tokens of all layers, [B, L_v + 1, T, C], as the projector would receive each of them."""
        ...

    def project(self, model: nn.Module, fused_BTC: Tensor) -> list[Tensor]:
        """Visual tokens [N, D] of every picture from its fused patch tokens."""
        ...

    def encoder_outputs(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """A fresh ``mm_encoder_outputs`` for ``forward`` or ``generate``; the pictures in order of rows.

        Fresh, because ``generate`` with beams writes into what it is given: make one for every call.
        """
        ...
