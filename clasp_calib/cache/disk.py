"""Plain files: opened without being led elsewhere, read and written whole, and the errors of disks and of damage."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import xxhash

from clasp_calib.cache.precision import Stored
from clasp_calib.common.errors import CacheError

REPAIR = "`clasp-calib cache repair` sets aside what is damaged, cache-features then encodes it again"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FEW_FILES = (errno.EMFILE, errno.ENFILE)


class DamagedError(CacheError):
    """Something that is not what was written, whenever one looks; a disk that fails for now is a plain CacheError."""


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file; nothing else is opened, and no link is followed.

    Raises:
        DamagedError: there is no such file.
        CacheError: it is something else, or cannot be opened now.
    """
    check_plain(path)
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing; {REPAIR}") from error
    except OSError as error:
        raise unreadable(path, error) from error


def check_plain(path: Path) -> None:
    """Make sure that there is a plain file at a path, or nothing.

    Raises:
        CacheError: a link or something else is there, or nobody may look.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        what = f"a link to {os.readlink(path)}" if stat.S_ISLNK(mode) else "no plain file"
        raise CacheError(
            f"{path} is {what}; the files of a cache are plain files inside its directory: put the file itself there"
        )


def write_exactly(descriptor: int, buffer: memoryview, offset: int) -> None:
    """``pwrite`` the whole buffer."""
    if _transfer(os.pwrite, descriptor, buffer, offset) < len(buffer):
        raise OSError(errno.EIO, "nothing could be written")


def read_exactly(descriptor: int, buffer: memoryview, offset: int) -> bool:
    """``preadv`` the whole buffer, and tell whether the file has as many bytes."""
    return _transfer(lambda file, part, at: os.preadv(file, [part], at), descriptor, buffer, offset) == len(buffer)


def checksums(stored: Stored) -> bytes:
    """The xxh3-64 of each slab's bytes (values, then scales), 8 bytes a layer, big endian."""
    digests = []
    for layer in range(len(stored.data_LTC)):
        digest = xxhash.xxh3_64()
        for part in stored.parts:
            digest.update(part[layer].data.cast("B"))
        digests.append(digest.digest())
    return b"".join(digests)


def unreadable(path: Path, error: OSError) -> CacheError:
    """The error for a file that cannot be read for now, which says nothing about what is in it."""
    advice = "allow more open files (`ulimit -n`)" if error.errno in _FEW_FILES else "mend that"
    return CacheError(f"cannot read {path} ({error.strerror}); {advice} and run again: nothing was changed")


def write_failed(error: OSError | RuntimeError, what: str) -> CacheError:
    """The error for a write that failed, because the disk is full or otherwise."""
    number = getattr(error, "errno", None)
    advice = "make room or choose another place" if number in _FULL else "mend that"
    reason = os.strerror(number) if number else error  # libhdf5's own words fill a page
    return CacheError(f"{what} ({reason}); {advice} and run again: what is cached so far stays")


def _transfer(call: Callable[[int, memoryview, int], int], descriptor: int, buffer: memoryview, offset: int) -> int:
    # A call may move fewer bytes than asked (a signal, a nearly full disk, the 2 GiB limit of Linux).
    done = 0
    while done < len(buffer):
        moved = call(descriptor, buffer[done:], offset + done)
        if moved == 0:
            break
        done += moved
    return done
