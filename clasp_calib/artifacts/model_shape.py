"""What an artifact must know of a model to be sure that its numbers fit it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from clasp_calib.common.errors import ModelError
from clasp_calib.common.hashing import sha256_json


class ModelShape(BaseModel):
    """The shapes that mixtures and schedules depend on, read from a transformers configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    vision_layers: int
    vision_width: int
    vision_feature_layer: int
    """Index into ``hidden_states``, counted from 0 (embeddings) to ``vision_layers``."""
    image_size: int
    patch_size: int
    tokens_per_image: int
    text_layers: int
    text_width: int
    text_mlp_width: int

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of all shapes."""
        return sha256_json(self.model_dump())

    def differences(self, other: "ModelShape") -> list[str]:
        """What differs, as ``name: ours, theirs``."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [f"{name}: {mine[name]!r}, {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


def model_shape(config: Any) -> ModelShape:
    """The shape of a model with one vision tower of fixed size, from its configuration.

    Raises:
        ModelError: the configuration is not that of such a model.
    """
    try:
        vision, text = config.vision_config, config.text_config
        layer = config.vision_feature_layer
        side = vision.image_size // vision.patch_size
        class_token = config.vision_feature_select_strategy == "full" and vision.model_type.startswith("clip")
        return ModelShape(
            architecture=(config.architectures or [type(config).__name__])[0],
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            vision_feature_layer=layer if layer >= 0 else vision.num_hidden_layers + 1 + layer,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            tokens_per_image=side * side + class_token,
            text_layers=text.num_hidden_layers,
            text_width=text.hidden_size,
            text_mlp_width=text.intermediate_size,
        )
    except (AttributeError, TypeError) as error:
        raise ModelError(
            f"cannot read the shape of a {type(config).__name__} ({error}); "
            "expected the configuration of a LLaVA model with one vision feature layer"
        ) from error
