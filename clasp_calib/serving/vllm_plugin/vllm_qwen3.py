"""Qwen3-VL in vLLM: as Qwen2.5-VL, and early decoder layers are given features of their own, which are dropped with
their tokens.
"""

from copy import copy
from typing import Any

from vllm.model_executor.models import qwen3_vl
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import InputProcessingContext

from clasp_calib.serving.vllm_plugin.vllm_qwen import PrunedQwen, PrunedQwenProcessing


class _WholeVideos(InputProcessingContext):  # type: ignore[misc]
    """Of a processor that writes all frames of a video, as vLLM's does where it prunes none."""

    def get_mm_config(self) -> Any:
        """vLLM's, without the rate that lets it ask for positions."""
        own = copy(super().get_mm_config())
        own.video_pruning_rate = None
        return own


class PrunedQwen3Processing(PrunedQwenProcessing, qwen3_vl.Qwen3VLMultiModalProcessor):  # type: ignore[misc]
    """Of Qwen3-VL."""

    def __init__(self, info: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(info, *args, **kwargs)
        if self.clasp:
            info.ctx = _WholeVideos(info.ctx.model_config, info.ctx.tokenizer)


@MULTIMODAL_REGISTRY.register_processor(
    PrunedQwen3Processing, info=qwen3_vl.Qwen3VLProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VL(PrunedQwen, qwen3_vl.Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """vLLM's own model where no artifact is served."""
