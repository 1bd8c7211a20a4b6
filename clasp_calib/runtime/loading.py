"""Loading a model and its processor from a directory or the Hub, with errors that say what to do."""

from pathlib import Path
from typing import Any

import torch

from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.runtime.adapters import adapter_for

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(source: str, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Load a multimodal model in evaluation mode, and its processor.

    Args:
        source: a directory, or a Hub id such as ``llava-hf/llava-1.5-7b-hf`` (the Hub's client keeps a copy).
        device: a torch device, such as ``cpu`` or ``cuda:0``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        InputError: an unknown dtype or device.
        ModelError: the model cannot be loaded, or no adapter knows its architecture.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot use the device {device!r} ({reason}); try --device cpu") from error
    logging.disable_progress_bar()
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise ModelError(f"{source} holds no model (there is no config.json); give a transformers model directory")
    try:
        adapter_for(AutoConfig.from_pretrained(source))
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=DTYPES[dtype]).to(place).eval()
        processor = AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load a multimodal model from {source!r} ({reason}); give a model directory, a Hub id that "
            "this machine can reach, or 'reference' for the embedded model"
        ) from error
    return model, processor
