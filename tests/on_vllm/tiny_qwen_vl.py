"""Tiny Qwen models with random weights for vLLM on a CPU, whose attention wants heads of a width of 32."""

import sys
from pathlib import Path
from typing import Any

import torch
from image_processors import tokenizer, without_videos
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.processing_utils import VideosKwargs

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from architectures import _randomise

_SIDE = 28
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MOST = 64
"""Tokens of a picture."""
_TEXT = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "head_dim": 32},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024},
}
_AXES: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"mrope_section": [4, 6, 6]},
    "qwen3_vl": {"mrope_section": [6, 5, 5], "mrope_interleaved": True},
}
_ROPE = {
    name: {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **axes}} for name, axes in _AXES.items()
}
_VISION = {
    **{"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64, "depth": 4, "num_heads": 2},
    **{"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
}
_MODELS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "qwen2_5_vl": (
        *(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor),
        {"window_size": 56, "fullatt_block_indexes": [2]},
    ),
    "qwen3_vl": (
        *(Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor),
        {"deepstack_visual_indexes": [0, 2], "num_position_embeddings": 64},
    ),
}


class _NoVideos:
    """Stands for a video processor, which needs torchvision."""

    valid_kwargs = VideosKwargs
    temporal_patch_size = 2

    def __init__(self) -> None:
        self.size = {"shortest_edge": _SIDE**2, "longest_edge": _SIDE**2 * 8}


def tiny_qwen_vl_processor(name: str) -> Any:
    """Of ``qwen2_5_vl`` or ``qwen3_vl``; it takes no videos."""
    tokens = {"image_token": "<image>", "video_token": "<video>"}
    made = tokenizer(**tokens, vision_start_token="<start>", vision_end_token="<end>")
    images = Qwen2VLImageProcessorPil(min_pixels=_SIDE**2, max_pixels=_SIDE**2 * MOST)
    processor = without_videos(_MODELS[name][2])(images, made, chat_template="none")
    processor.video_processor = _NoVideos()
    return processor


def tiny_qwen_vl(name: str) -> Any:
    """The model, in float32 and eval mode."""
    config_class, model_class, _, vision = _MODELS[name]
    ids = tiny_qwen_vl_processor(name).tokenizer
    config = config_class(
        text_config={
            **_TEXT,
            **_ROPE[name],
            "vocab_size": len(ids),
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={**_VISION, **vision},
        tie_word_embeddings=False,
        architectures=[model_class.__name__],
        **{f"{token}_token_id": getattr(ids, f"{token}_token_id") for token in ("image", "video")},
        **{f"vision_{end}_token_id": getattr(ids, f"vision_{end}_token_id") for end in ("start", "end")},
    )
    model = model_class._from_config(config, attn_implementation="sdpa")
    _randomise(model)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.2)  # Logits of a trained model's size.
        model.lm_head.weight[ids.convert_tokens_to_ids(["<image>", "<video>", "<start>", "<end>"])] = 0
    model.generation_config.update(do_sample=False, **ENDS)
    return model.eval()


def tiny_qwen_vl_directory(path: Path, name: str) -> Path:
    """Model, tokenizer and image processor; what loads a whole processor must be given `tiny_qwen_vl_processor`."""
    processor = tiny_qwen_vl_processor(name)
    tiny_qwen_vl(name).save_pretrained(path)
    processor.tokenizer.save_pretrained(path)
    processor.image_processor.save_pretrained(path)
    return path
