"""What an artifact must know of a model to be sure that its numbers fit it."""

from typing import Annotated, Any

from pydantic import Field

from clasp_calib.common.errors import ModelError
from clasp_calib.common.fields import Line, Strict
from clasp_calib.common.hashing import sha256_json

# Our choice: some ten times what the largest models have.
Layers = Annotated[int, Field(ge=1, le=1000)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
_Size = Annotated[int, Field(ge=1, le=1_000_000)]


class ModelShape(Strict):
    """The shapes that mixtures and schedules depend on, read from a transformers configuration."""

    architecture: Line
    vision_layers: Layers
    vision_width: _Size
    vision_feature_layer: int = Field(ge=0, le=1000)
    """Index into ``hidden_states``, counted from 0 (embeddings) to ``vision_layers``."""
    image_size: _Size | None
    """``None`` where pictures keep their own size."""
    patch_size: _Size
    tokens_per_image: Tokens | None
    """``None`` where pictures differ in their number of tokens."""
    text_layers: Layers
    text_width: _Size
    text_mlp_width: _Size

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of all shapes."""
        return sha256_json(self.model_dump())

    def differences(self, other: "ModelShape") -> list[str]:
        """What differs, as ``name: ours, theirs``."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [f"{name}: {mine[name]!r}, {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


# model_type of models whose pictures differ in their number of visual tokens.
_RAGGED = {
    *("idefics3", "internvl", "llava_next", "llava_onevision", "minicpmv4_6", "smolvlm", "video_llava"),
    *("glm4v", "qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_vl"),
}


def model_shape(config: Any) -> ModelShape:
    """The shape of a model with a vision tower and a projector, from its configuration.

    Raises:
        ModelError: the configuration is not that of such a model.
    """
    try:
        vision, text = config.vision_config, config.text_config
        depth = vision.depth if hasattr(vision, "depth") else vision.num_hidden_layers
        layer = getattr(config, "vision_feature_layer", -1)
        image_size, patch_size = _side(getattr(vision, "image_size", None)), _side(vision.patch_size)
        assert patch_size is not None
        return ModelShape(
            architecture=(config.architectures or [type(config).__name__])[0],
            vision_layers=depth,
            vision_width=vision.embed_dim if hasattr(vision, "embed_dim") else vision.hidden_size,
            vision_feature_layer=layer if layer >= 0 else depth + 1 + layer,
            image_size=image_size,
            patch_size=patch_size,
            tokens_per_image=_tokens(config, image_size, patch_size),
            text_layers=text.num_hidden_layers,
            text_width=text.hidden_size,
            text_mlp_width=text.intermediate_size,
        )
    except (AttributeError, TypeError, ValueError) as error:  # A bound of the shape is a ValueError.
        raise ModelError(
            f"cannot read the shape of a {type(config).__name__} ({error}); "
            "expected the configuration of a multimodal model that projects one layer of its vision tower"
        ) from error


def _tokens(config: Any, image_size: int | None, patch_size: int) -> int | None:
    if config.model_type in _RAGGED or image_size is None:
        return None
    if config.model_type == "gemma3":
        return int(config.mm_tokens_per_image)
    class_token: bool = config.vision_feature_select_strategy == "full" and config.vision_config.model_type.startswith(
        "clip"
    )
    return (image_size // patch_size) ** 2 + int(class_token)


def _side(size: Any) -> int | None:
    """Some configurations give height and width."""
    side: int | None = size[0] if isinstance(size, list | tuple) else size
    return side
