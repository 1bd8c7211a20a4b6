"""One thin adapter an architecture: where its tower, projector, decoder and visual tokens are."""

from importlib import import_module
from typing import Any

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.wrapped import check_bare

# model_type of the configuration -> module and class, imported when wanted.
ADAPTERS = {
    "gemma3": ("gemma3", "Gemma3Adapter"),
    "glm4v": ("glm4v", "Glm4vAdapter"),
    "idefics3": ("idefics3", "Idefics3Adapter"),
    "internvl": ("internvl", "InternVLAdapter"),
    "llava": ("llava", "LlavaAdapter"),
    "llava_next": ("llava_next", "LlavaNextAdapter"),
    "llava_onevision": ("llava_next", "LlavaOnevisionAdapter"),
    "minicpmv4_6": ("minicpmv", "MiniCPMVAdapter"),
    "qwen2_5_vl": ("qwen_vl", "Qwen25VLAdapter"),
    "qwen2_vl": ("qwen_vl", "Qwen2VLAdapter"),
    "qwen3_5": ("qwen_vl", "Qwen35Adapter"),
    "qwen3_vl": ("qwen_vl", "Qwen3VLAdapter"),
    "smolvlm": ("idefics3", "Idefics3Adapter"),
    "video_llava": ("video_llava", "VideoLlavaAdapter"),
}


def adapter_for(model_or_config: Any) -> Adapter:
    """The adapter of a transformers model or of its configuration.

    Raises:
        ModelError: the architecture is not known, or set up in a way that its adapter cannot serve; the model is
            wrapped, compiled or offloaded.
    """
    check_bare(model_or_config)
    config = getattr(model_or_config, "config", model_or_config)
    kind = getattr(config, "model_type", None)
    if kind is None:
        raise ModelError(
            f"expected a transformers model, and was given a {type(model_or_config).__name__}; load one with "
            "AutoModelForImageTextToText.from_pretrained"
        )
    if kind not in ADAPTERS:
        raise ModelError(
            f"no adapter for the architecture {kind!r}; use a model of a known one "
            f"({', '.join(sorted(ADAPTERS))}), or write an adapter (docs/guide/adapters.md says how)"
        )
    module, name = ADAPTERS[kind]
    adapter: Adapter = getattr(import_module(f"{__name__}.{module}"), name)(config)
    return adapter
