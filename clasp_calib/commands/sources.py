"""Where search and evaluate look for vision layers."""

from pathlib import Path

from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory


def cache_of(directory: RunDirectory, cache: Path | None, recompute: bool) -> Path | None:
    """The cache to read, or None to run the vision tower instead.

    Raises:
        InputError: both were asked for.
    """
    if recompute and cache is not None:
        raise InputError(f"--recompute uses no cache, and --cache gives {cache}; leave one of them out")
    return None if recompute else cache or directory.cache
