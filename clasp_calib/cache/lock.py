"""One writer at a time: an advisory lock on a file, which the kernel releases when its process dies."""

import fcntl
import os
import socket
from pathlib import Path

from clasp_calib.cache.disk import write_failed
from clasp_calib.common.errors import CacheError

FILE = "writer.lock"


class WriterLock:
    """Held from construction until `release`."""

    def __init__(self, root: Path):
        """Take the lock of the cache at ``root``.

        Raises:
            CacheError: somebody else holds it, or the place cannot be written to or cannot lock.
        """
        self._descriptor = -1
        path = root / FILE
        try:
            # Closing the descriptor releases the lock; the file itself stays, because removing a locked file
            # would let a third process lock a new one of the same name.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CacheError(
                f"cannot write to the cache {root} ({error.strerror}); give a directory that you may write to"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            self.release()
            if isinstance(error, BlockingIOError):
                raise CacheError(
                    f"the cache {root} is being written by {holder}, and takes one writer at a time; "
                    "wait for it, end it, or give another directory"
                ) from error
            raise CacheError(
                f"the file system of {root} cannot lock files ({error.strerror}); put the cache on a local disk"
            ) from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise write_failed(error, f"cannot write to the cache {root}") from error

    def release(self) -> None:
        """Let the next writer in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()
