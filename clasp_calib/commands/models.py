"""Finding the model that a command is told to use."""

from typing import Any

from clasp_calib.commands.options import REFERENCE
from clasp_calib.common.errors import ModelError


def load(model: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Model and processor of a directory, a Hub id, or the embedded reference."""
    from clasp_calib.reference.model import MODEL
    from clasp_calib.runtime.loading import load_model

    if model == REFERENCE:
        if not (MODEL / "config.json").is_file():
            raise ModelError(
                f"the embedded model is missing from this installation ({MODEL}); install the package again"
            )
        return load_model(str(MODEL), device, dtype)
    return load_model(model, device, dtype)
