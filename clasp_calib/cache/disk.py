"""Whole reads and writes, checksums, and the error for a disk that fails."""

import errno
import os
from collections.abc import Callable

import xxhash

from clasp_calib.cache.precision import Stored
from clasp_calib.common.errors import CacheError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_exactly(descriptor: int, buffer: memoryview, offset: int) -> None:
    """``pwrite`` the whole buffer."""
    _transfer(os.pwrite, descriptor, buffer, offset)


def read_exactly(descriptor: int, buffer: memoryview, offset: int) -> None:
    """``preadv`` the whole buffer."""
    _transfer(_pread_into, descriptor, buffer, offset)


def checksums(stored: Stored) -> bytes:
    """The xxh3-64 of each slab's bytes (values, then scales), 8 bytes a layer, big endian."""
    digests = []
    for layer in range(len(stored.data_LTC)):
        digest = xxhash.xxh3_64()
        for part in stored.parts:
            digest.update(part[layer].data.cast("B"))
        digests.append(digest.digest())
    return b"".join(digests)


def write_failed(error: OSError | RuntimeError, what: str) -> CacheError:
    """The error for a write that failed, because the disk is full or otherwise."""
    advice = "make room or choose another place" if getattr(error, "errno", None) in _FULL else "mend that"
    reason = getattr(error, "strerror", None) or error
    return CacheError(f"{what} ({reason}); {advice} and run again: what is cached so far stays")


def _pread_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    return os.preadv(descriptor, [buffer], offset)


def _transfer(call: Callable[[int, memoryview, int], int], descriptor: int, buffer: memoryview, offset: int) -> None:
    # A call may move fewer bytes than asked (a signal, a nearly full disk, the 2 GiB limit of Linux).
    done = 0
    while done < len(buffer):
        moved = call(descriptor, buffer[done:], offset + done)
        if moved == 0:
            raise OSError(errno.EIO, "the file ends early")
        done += moved
