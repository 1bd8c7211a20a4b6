"""Before a server starts: the artifact is read, compared with the model, and put into the model's configuration.

From there vLLM gives it to the processes that it starts, to Ray's workers on other machines too. A part of a server
that is started by itself makes a configuration of its own.
"""

from collections.abc import Sequence
from typing import Any

from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.serving.resolving import asked_for, resolved
from clasp_calib.serving.served import ServedArtifact

_NOTHING = 1e-17
"""Of a video: a share that is more than 0, with which vLLM asks a model for the positions of what it kept, and so
little that no token is dropped for it."""


def configure(served: Sequence[str]) -> None:
    """Have the configuration of every model looked at as it is made.

    Args:
        served: architectures that the plug-in knows.
    """
    from vllm.model_executor.models import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    for architecture in ModelRegistry.get_supported_archs():
        own = MODELS_CONFIG_MAP.get(architecture, VerifyAndUpdateConfig)
        if not hasattr(own, "clasp_known"):
            MODELS_CONFIG_MAP[architecture] = _looking(own, architecture in served)


def _looking(own: Any, known: bool) -> Any:
    """vLLM's own look at a configuration of some architecture, and ours before it."""

    class Looking(own):  # type: ignore[misc]
        clasp_known = known

        @staticmethod
        def verify_and_update_model_config(model_config: Any) -> None:
            _resolve(model_config, known)
            own.verify_and_update_model_config(model_config)

        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            lora = vllm_config.lora_config
            if ServedArtifact.of(vllm_config.model_config.hf_config) and lora and lora.enable_tower_connector_lora:
                raise ModelError(
                    "LoRA on the vision tower counts the tokens that its pictures leave, of which an artifact drops "
                    "some; leave enable_tower_connector_lora out"
                )
            own.verify_and_update_config(vllm_config)

    return Looking


def _resolve(model_config: Any, known: bool) -> None:
    from vllm.logger import init_logger

    config, logger = model_config.hf_config, init_logger("vllm.clasp_calib")
    if ServedArtifact.of(config):
        return
    overrides = model_config.hf_overrides if isinstance(model_config.hf_overrides, dict) else {}
    if "clasp" not in overrides and getattr(config, "clasp", None) is not None:
        logger.warning("the model's own config.json holds 'clasp', which is not read; give it as --hf-overrides")
        config.clasp = None
    if not (given := asked_for(overrides.get("clasp"))):
        return
    if not known:
        if not (model_config.is_multimodal_model or "clasp" in overrides):
            return  # Of a draft model, or of a labeller in the same shell.
        raise ModelError(
            f"an artifact is to be served ({given['artifact']}), and the plug-in does not know "
            f"{model_config.architecture}; unset CLASP_ARTIFACT, or serve a model that docs/guide/serving.md names"
        )
    wide = model_config.multimodal_config.mm_processor_kwargs or {}
    if taken := [name for name in wide if name.startswith("clasp_")]:
        raise InputError(
            f"--mm-processor-kwargs holds {taken[0]!r}, which vLLM gives to transformers' processor; "
            "set CLASP_CLASS or CLASP_BUDGET for all requests"
        )
    served, _, notes = resolved(config, given, model_config.model, model_config.revision)
    if model_config.uses_mrope:
        _let_positions_follow(model_config.multimodal_config)
    config.clasp = served.to_dict()
    for note in notes:
        logger.warning("%s", note)
    logger.info("serving %s (%s) at %s", served.artifact, served.digest[:12], served.budget)


def _let_positions_follow(multimodal: Any) -> None:
    """Have vLLM ask the model for positions once it knows what is kept.

    Raises:
        ModelError: the server prunes videos.
    """
    if multimodal.video_pruning_rate:
        raise ModelError(
            f"--video-pruning-rate {multimodal.video_pruning_rate} and an artifact do not go together; leave one out"
        )
    multimodal.video_pruning_rate = _NOTHING
