"""Loading a model and its processor from a directory or the Hub, with errors that say what to do."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from clasp_calib.common.errors import ClaspError, InputError, ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.checkpoint import check_files, check_weights
from clasp_calib.runtime.processor_check import check_processor

NEAREST = 3
"""Names that a message proposes."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(source: str, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Load a multimodal model in evaluation mode, and its processor, all of both and fitting each other.

    Args:
        source: a directory, or a Hub id such as ``llava-hf/llava-1.5-7b-hf`` (the Hub's client keeps a copy).
        device: a torch device, such as ``cpu`` or ``cuda:0``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        InputError: an unknown dtype or device.
        ModelError: the model cannot be loaded as it was saved, no adapter knows its architecture, or the processor is
            another model's.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import cached_file, logging as transformers_logging

    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot use the device {device!r} ({reason}); try --device cpu") from error
    transformers_logging.disable_progress_bar()
    folder = Path(source)
    if folder.is_file():
        raise ModelError(f"{source} is a file; give the directory of a model, in which config.json is")
    if not folder.exists():
        _ask_the_hub(source)
    if folder.is_dir():
        check_files(folder)
        if not (folder / "config.json").is_file():
            raise ModelError(f"{source} holds no model (there is no config.json); give a transformers model directory")
    try:
        adapter_for(AutoConfig.from_pretrained(source, trust_remote_code=False))
        with _quiet():
            # Other shapes are let pass here, and refused by name below.
            model, info = AutoModelForImageTextToText.from_pretrained(
                source,
                dtype=DTYPES[dtype],
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
            )
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        if not folder.is_dir():
            check_files(Path(cached_file(source, "config.json")).parent)
        model = model.to(place).eval()
    except ClaspError:
        raise
    except Exception as error:  # Damaged settings make transformers raise whatever they happen to break.
        raise ModelError(
            f"cannot load a multimodal model from {source!r} ({_reason(error)}); give a model directory, a Hub id that "
            "this machine can reach, or 'reference' for the embedded model"
        ) from error
    check_weights(source, model, info, dtype)
    check_processor(model, processor)
    return model, processor


def _ask_the_hub(source: str) -> None:
    """Say that a name that is no directory is looked up on the Hub, or refuse it at once if it cannot be there.

    Raises:
        ModelError: it is no id of the form ``org/name``; names what lies near.
    """
    # A server need not have what it is printed with.
    from clasp_calib.common.progress import note

    near = _near(Path(source))
    told = f"; did you mean {' or '.join(near)}?" if near else ""
    if not _HUB_ID.fullmatch(source):
        raise ModelError(
            f"cannot load a multimodal model from {source!r}: there is no such directory, and ids of the Hub have the "
            f"form org/name{told}; give a model directory, a Hub id, or 'reference' for the embedded model"
        )
    note(f"there is no directory {source}, so the Hugging Face Hub is asked for a model of that name{told}")


def _near(path: Path) -> list[str]:
    """Models that lie beside ``path`` under a similar name, the nearest first."""
    try:
        beside = [found.parent.name for found in path.parent.glob("*/config.json")]
    except OSError:
        return []
    return [str(path.parent / name) for name in get_close_matches(path.name, beside, NEAREST)]


def _reason(error: Exception) -> str:
    """What went wrong, in a line; the kind too where that says more, as of a KeyError."""
    if isinstance(error, UnpicklingError):
        return "its weights are a pickle that holds more than tensors, and to load it would run what it says"
    first = next(iter(str(error).strip().splitlines()), "")
    told = isinstance(error, OSError | ValueError | RuntimeError | ImportError) and first
    return first if told else f"{type(error).__name__}: {first}" if first else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out transformers' own table of weights: what it tells is refused or noted here."""
    logger = logging.getLogger("transformers.modeling_utils")

    def others(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "LOAD REPORT" not in text or "CONVERSION" in text

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)
