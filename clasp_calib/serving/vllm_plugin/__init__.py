"""An artifact inside vLLM: pictures are pruned before the decoder, by the class of their question.

vLLM 0.32 calls `register` in each of its processes (entry point group ``vllm.general_plugins``). Without an artifact
its models are its own, to the bit.
"""

import os

VERSION = "0.32."
"""Of vLLM, on whose inner classes the plug-in builds."""
MODELS = {
    "InternVLForConditionalGeneration": "vllm_internvl:PrunedInternVL",
    "LlavaForConditionalGeneration": "vllm_llava:PrunedLlava",
    "LlavaNextForConditionalGeneration": "vllm_llava_next:PrunedLlavaNext",
    "LlavaOnevisionForConditionalGeneration": "vllm_onevision:PrunedOnevision",
    "Qwen2_5_VLForConditionalGeneration": "vllm_qwen:PrunedQwen25VL",
    "Qwen3VLForConditionalGeneration": "vllm_qwen3:PrunedQwen3VL",
}
"""Architectures that can be served -> module here and class."""


def register() -> None:
    """Let vLLM know the classes by name, so that nothing is imported before it wants one.

    Raises:
        ModelError: an artifact is to be served, and this vLLM is of another version.
    """
    from vllm import ModelRegistry
    from vllm.logger import init_logger
    from vllm.version import __version__

    from clasp_calib.common.errors import ModelError
    from clasp_calib.serving.resolving import NAMES

    if not __version__.startswith(VERSION):
        if any(os.environ.get(variable) for variable in NAMES.values()):
            raise ModelError(
                f"the plug-in of clasp-calib is for vLLM {VERSION}x, and this is {__version__}; install it"
            )
        init_logger("vllm.clasp_calib").warning(
            "clasp-calib serves artifacts on vLLM %sx only, and this is %s: none is served", VERSION, __version__
        )
        return
    from clasp_calib.serving.vllm_plugin.configuring import configure

    for architecture, place in MODELS.items():
        ModelRegistry.register_model(architecture, f"{__name__}.{place}")
    configure(tuple(MODELS))
