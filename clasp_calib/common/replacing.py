"""Files that are there whole or not at all."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clasp_calib.common.given_files import check_regular


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write a file to, which then replaces ``path``, even if a power cut follows.

    Several may do so at once: each has a path of its own, and the last to end wins. If the block fails, what it wrote
    is removed and ``path`` stays as it was. What a killed process left is removed by the next.

    Raises:
        InputError: a directory, a pipe or a device is there, which must not be replaced.
    """
    if path.exists():
        check_regular(path, "output")
    clear_leftovers(path.parent, glob.escape(path.name))
    with _beside(path) as partial:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)


def clear_leftovers(directory: Path, names: str) -> None:
    """Remove what killed processes left beside the files that they were to replace.

    Args:
        directory: where these files are.
        names: a glob pattern of their names.
    """
    for left in directory.glob(f"{names}.*.tmp"):
        # A link is somebody's; who is still writing holds the lock; where nothing can be locked, nobody can tell.
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(descriptor)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """The path of a file in a directory of its own, which is locked while it is there.

    The directory is locked, not the file, since HDF5 locks its files itself.
    """
    home, descriptor = _locked(path)
    try:
        yield home / path.name
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(descriptor)


def _locked(path: Path) -> tuple[Path, int]:
    while True:
        home = Path(tempfile.mkdtemp(".tmp", f"{path.name}.", path.parent))
        with suppress(FileNotFoundError):  # Taken for a leftover before it was locked.
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(OSError):  # Not every file system has locks.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if home.exists():
                return home, descriptor
            os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
