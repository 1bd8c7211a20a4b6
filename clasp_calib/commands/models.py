"""The model that a command works on: what it is told, or what its run directory remembers."""

from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import note
from clasp_calib.common.run_directory import RunDirectory

REFERENCE = "reference"


def load(given: str | None, device: str, dtype: str, run: Path | None = None) -> tuple[Any, Any]:
    """Model and processor of what was given, or of the run.

    A run directory remembers the first model that a command was given, so that later ones need not be told.

    Raises:
        InputError: the run is of another model.
        ModelError: the model cannot be loaded.
    """
    from clasp_calib.api.model_loading import load_model

    directory = RunDirectory(run) if run is not None else None
    name, source = named(given, directory)
    if given is None and (directory is None or directory.model is None):
        note("no --model was given: this works on the small embedded model (reference)")
    loaded = load_model(source, device, dtype)
    if given is not None and directory is not None and directory.root.is_dir():
        directory.remember_model(name, source)
    return loaded


def named(given: str | None, directory: RunDirectory | None) -> tuple[str, str]:
    """What the model is called, and where it is loaded from, whatever the working directory.

    Raises:
        InputError: the run is of another model.
    """
    known = directory.model if directory is not None else None
    if given is None:
        return known or (REFERENCE, REFERENCE)
    source = str(Path(given).resolve()) if Path(given).is_dir() else given
    if directory is not None and known is not None and known[1] != source:
        raise InputError(
            f"the run {directory.root} is of the model {known[1]}, and --model gives {source}; leave --model out, or "
            "give another --run"
        )
    return known or (given, source)
