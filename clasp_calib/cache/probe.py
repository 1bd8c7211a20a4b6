"""How fast a disk is, found out in two seconds, without leaving anything on it."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clasp_calib.cache.disk import read_exactly, write_exactly, write_failed

SECONDS = 2.0
MOST = 1 << 30
"""Bytes that are written at most: some disks write more than that in a second."""


@dataclass(frozen=True)
class DiskSpeed:
    """Bytes a second."""

    write: float
    """Including the wait until it is on the disk."""
    read: float
    """From the disk, whole blocks in random order. A cache below a virtual machine may make it look faster."""
    memory: float
    """The same from the system's page cache."""


def probe_disk(folder: Path, block: int, seconds: float = SECONDS, most: int = MOST) -> DiskSpeed:
    """Write blocks to a file that has no name, and read them back.

    Args:
        folder: a directory on the disk.
        block: bytes of one write or read.
        seconds: how long, at most, but for the wait for the last writes.
        most: bytes to write at most; one block is written in any case.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    noise = memoryview(np.random.default_rng(0).bytes(block))
    buffer = memoryview(bytearray(block))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            descriptor, blocks = file.fileno(), 0
            begun = time.perf_counter()
            while blocks == 0 or (time.perf_counter() - begun < seconds / 2 and (blocks + 1) * block <= most):
                write_exactly(descriptor, noise, blocks * block)
                blocks += 1
            os.fsync(descriptor)
            write = blocks * block / (time.perf_counter() - begun)
            order = np.random.default_rng(0).permutation(blocks)
            memory = _read(descriptor, buffer, order, seconds / 8)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            return DiskSpeed(write, _read(descriptor, buffer, order, seconds / 4), memory)
    except OSError as error:
        raise write_failed(error, f"cannot try the disk at {folder}") from error


def _read(descriptor: int, buffer: memoryview, order: "np.typing.NDArray[np.int64]", seconds: float) -> float:
    """Speed of reading the blocks in this order, each once at most."""
    done, begun = 0, time.perf_counter()
    for number in order:
        read_exactly(descriptor, buffer, int(number) * len(buffer))
        done += 1
        if (took := time.perf_counter() - begun) >= seconds:
            break
    return done * len(buffer) / max(took, 1e-9)
