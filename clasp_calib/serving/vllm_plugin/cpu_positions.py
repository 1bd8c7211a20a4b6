"""On a CPU: vLLM 0.32 forgets there to look whether a model is to be asked for positions once it has pruned."""

from typing import Any


def ask_for_positions() -> None:
    """Let the runner on a CPU look as all others do when they have loaded a model."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    CPUModelRunner.is_multimodal_pruning_enabled = property(_asked_for, _ignored)


def _asked_for(runner: Any) -> bool:
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning

    multimodal, model = runner.model_config.multimodal_config, getattr(runner, "model", None)
    return bool(supports_multimodal_pruning(model) and multimodal and multimodal.is_multimodal_pruning_enabled())


def _ignored(runner: Any, value: bool) -> None:
    """It starts with no, and is never told otherwise."""
