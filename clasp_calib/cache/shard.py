"""One shard: an HDF5 file whose metadata is written once, and its features then at their byte offset.

libhdf5 touches a shard only while it is created under a temporary name. Afterwards its metadata never
changes, so a writer that is killed at any moment leaves a file that every HDF5 tool can open.

Shape suffixes: L layers of the shard, T tokens, C channels. A slab is one layer of one picture, [T, C]
float16.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from clasp_calib.common.errors import CacheError

DATASET = "x"
FORMAT = "clasp-calib features 1"
ALIGNMENT = 4096
"""Bytes. Slabs start on a page, so that they can be mapped or read around the page cache."""

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ShardRecord:
    """What the index knows of a shard."""

    id: int
    file: str
    offset: int
    """Byte at which the dataset begins."""
    slots: int
    """Pictures that it has room for."""
    layers: tuple[int, ...]


def create_shard(path: Path, slots: int, layers: Sequence[int], shape: tuple[int, int], encoder: str) -> int:
    """Create a shard [slots, L, T, C] with all its space reserved, complete or not at all.

    Returns:
        The byte offset of the dataset.

    Raises:
        CacheError: the disk is full or cannot be written to.
    """
    import h5py

    partial = path.with_name(path.name + ".tmp")
    tokens, channels = shape
    size = slots * len(layers) * tokens * channels * 2
    try:
        # meta_block_size: room for all metadata before the features, so that these end the file and a file
        # cut short is known by its size. locking: nobody else knows of the temporary file, and some network
        # file systems cannot lock.
        with h5py.File(
            partial,
            "w",
            alignment_threshold=ALIGNMENT,
            alignment_interval=ALIGNMENT,
            meta_block_size=ALIGNMENT,
            locking=False,
        ) as file:
            file.attrs["format"] = FORMAT
            file.attrs["encoder"] = encoder
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            space = h5py.h5s.create_simple((slots, len(layers), tokens, channels))
            dataset = h5py.Dataset(h5py.h5d.create(file.id, DATASET.encode(), h5py.h5t.IEEE_F16LE, space, layout))
            dataset.attrs["axes"] = "slot, layer, token, channel"
            dataset.attrs["layers"] = np.asarray(layers, dtype=np.int64)
            offset = int(dataset.id.get_offset())
        descriptor = os.open(partial, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, offset, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:  # h5py reports some failed writes as RuntimeError
        partial.unlink(missing_ok=True)
        raise write_failed(error, f"cannot reserve {size / 2**20:.0f} MiB for {path}") from error
    return offset


class Shard:
    """An open shard. Positional reads only, so threads and forked processes may share it."""

    def __init__(self, root: Path, record: ShardRecord, shape: tuple[int, int], writable: bool = False):
        """Open the shard's file.

        Raises:
            CacheError: the file is missing, cannot be opened, or is shorter than the index says.
        """
        self.record = record
        self.path = root / record.file
        self.shape = shape
        self.slab_bytes = shape[0] * shape[1] * 2
        self._descriptor = -1
        try:
            self._descriptor = os.open(self.path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            raise CacheError(f"cannot open the shard {self.path} ({error.strerror}); {REPAIR}") from error
        expected = record.offset + record.slots * len(record.layers) * self.slab_bytes
        if (found := os.fstat(self._descriptor).st_size) < expected:
            raise CacheError(f"the shard {self.path} has {found} bytes, expected at least {expected}; {REPAIR}")

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def write(self, slot: int, features_LTC: Halves) -> bytes:
        """Write one picture's layers into a slot.

        Args:
            slot: 0 <= slot < slots.
            features_LTC: float16, C-contiguous, one row a layer of the shard.

        Returns:
            The layers' checksums, 8 bytes (xxh3-64, big endian) each.

        Raises:
            CacheError: the disk is full or failed.
        """
        buffer = features_LTC.data.cast("B")
        try:
            _transfer(os.pwrite, self._descriptor, buffer, self._at(slot, 0))
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error
        return b"".join(checksum(slab_TC) for slab_TC in features_LTC)

    def read(self, slot: int, position: int, out_TC: Halves) -> None:
        """Read one slab into ``out_TC`` (float16, C-contiguous).

        Raises:
            CacheError: the disk failed or the file ends early.
        """
        try:
            _transfer(_pread_into, self._descriptor, out_TC.data.cast("B"), self._at(slot, position))
        except OSError as error:
            raise CacheError(f"cannot read the shard {self.path} ({error.strerror}); {REPAIR}") from error

    def sync(self) -> None:
        """Wait until what was written is on the disk itself.

        Raises:
            CacheError: the disk is full or failed.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error

    def _at(self, slot: int, position: int) -> int:
        return self.record.offset + (slot * len(self.record.layers) + position) * self.slab_bytes


def checksum(slab_TC: Halves) -> bytes:
    """The xxh3-64 of a slab's bytes, as 8 bytes."""
    return xxhash.xxh3_64_digest(slab_TC.data.cast("B"))


def write_failed(error: OSError | RuntimeError, what: str) -> CacheError:
    """The error of a disk that is full, or of any other disk."""
    advice = "make room or choose another place" if getattr(error, "errno", None) in _FULL else "mend that"
    reason = getattr(error, "strerror", None) or error
    return CacheError(f"{what} ({reason}); {advice} and run again: what is cached so far stays")


def sync_directory(path: Path) -> None:
    """Make a rename in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


REPAIR = "run cache-features again with --verify, which drops what is damaged and encodes it anew"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
