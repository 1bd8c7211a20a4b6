"""A model and its processor by name."""

from typing import Any

from clasp_calib.common.errors import ModelError
from clasp_calib.reference.model import MODEL

REFERENCE = "reference"


def load_model(name: str, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Load a multimodal model in evaluation mode, and its processor.

    Args:
        name: a directory, a Hub id such as ``llava-hf/llava-1.5-7b-hf`` (the Hub's client keeps a copy), or
            ``reference`` for the small embedded model.
        device: a torch device, such as ``cpu`` or ``cuda:0``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Returns:
        The model and the processor.

    Raises:
        InputError: an unknown dtype or device.
        ModelError: the model cannot be loaded, or its architecture is not known.
    """
    from clasp_calib.runtime.loading import load_model as load_from

    if name == REFERENCE and not (MODEL / "config.json").is_file():
        raise ModelError(f"the embedded model is missing from this installation ({MODEL}); install the package again")
    return load_from(str(MODEL) if name == REFERENCE else name, device, dtype)
