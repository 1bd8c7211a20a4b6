"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clasp_calib.common.given_files import check_regular


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write a file to, which then replaces ``path``, even if a power cut follows.

    If the block fails, what it wrote is removed and ``path`` stays as it was.

    Raises:
        InputError: a directory, a pipe or a device is there, which must not be replaced.
    """
    if path.exists():
        check_regular(path, "output")
    partial = path.with_name(path.name + ".tmp")
    # What a killed run left, or a link that would lead elsewhere.
    partial.unlink(missing_ok=True)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
