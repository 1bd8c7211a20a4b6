"""One writer at a time: an advisory lock on a file, which the kernel releases when its process dies.

Where a file system cannot lock files, the existence of another file is the lock. Nobody removes it when its process is
killed, so the next writer on the same machine looks whether that process is still there; one on another machine cannot.
"""

import fcntl
import os
import re
import socket
from pathlib import Path

from clasp_calib.cache.disk import check_plain, write_failed
from clasp_calib.common.errors import CacheError

FILE = "writer.lock"
NAME_FILE = "writer.name"


class WriterLock:
    """Held from construction until `release`."""

    def __init__(self, root: Path):
        """Take the lock of the cache at ``root``.

        Raises:
            CacheError: somebody else holds it, or the place cannot be written to or cannot lock.
        """
        self._descriptor = -1
        self._owned: Path | None = None
        path = root / FILE
        try:
            # Closing the descriptor releases the lock; the file itself stays, because removing a locked file
            # would let a third process lock a new one of the same name.
            check_plain(path)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise CacheError(
                f"cannot write to the cache {root} ({error.strerror}); give a directory that you may write to"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            self.release()
            raise _written_by(root, holder) from error
        except OSError:  # this file system cannot lock
            self._owned = _take_by_name(root)
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, _name(os.getpid()).encode(), 0)
        except OSError as error:
            self.release()
            raise write_failed(error, f"cannot write to the cache {root}") from error

    def release(self) -> None:
        """Let the next writer in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._owned is not None:
            self._owned.unlink(missing_ok=True)
            self._owned = None

    def __del__(self) -> None:
        self.release()


def _take_by_name(root: Path) -> Path:
    path = root / NAME_FILE
    for _ in range(2):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            check_plain(path)
            holder = path.read_bytes()[:200].decode(errors="replace").strip()
            if not _has_ended(holder):
                raise _written_by(root, holder, f" (if that process has ended, remove {path})") from None
            path.unlink(missing_ok=True)
            continue
        except OSError as error:
            raise write_failed(error, f"cannot write to the cache {root}") from error
        with os.fdopen(descriptor, "w") as file:
            file.write(_name(os.getpid()))
        return path
    raise _written_by(root, "another process")


def _has_ended(holder: str) -> bool:
    """Whether a holder was a process of this machine and is no more."""
    words = re.fullmatch(r"process (\d{1,9}) on .*", holder)
    if words is None or holder != _name(process := int(words[1])).strip():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _name(process: int) -> str:
    return f"process {process} on {socket.gethostname()}\n"


def _written_by(root: Path, holder: str, more: str = "") -> CacheError:
    return CacheError(
        f"the cache {root} is being written by {holder}, and takes one writer at a time{more}; "
        "wait for it, end it, or give another directory"
    )
