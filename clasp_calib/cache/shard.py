"""One open shard: slabs are read and written at their byte offsets, without HDF5.

libhdf5 touches a shard only while it is created under a temporary name (`clasp_calib.cache.hdf5`). Afterwards its
metadata never changes, so a writer that is killed at any moment leaves a file that every HDF5 tool can open. A direct
shard has room that is filled later; a portable one is written whole and never changed.

Shape suffixes: L layers of the shard, T tokens, C channels. A slab is one layer of one picture, [T, C]. A row is one
token; in a direct shard a picture takes ``stride`` rows a layer, layer after layer.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from clasp_calib.cache.disk import read_exactly, write_exactly, write_failed
from clasp_calib.cache.form import Form
from clasp_calib.cache.hdf5 import KEY_SCALES
from clasp_calib.cache.index import IndexEntry, ShardRecord
from clasp_calib.cache.precision import Stored
from clasp_calib.common.errors import CacheError

REPAIR = "`clasp-calib cache repair` drops what is damaged, cache-features then encodes it again"


class Shard:
    """An open direct shard. Positional reads and a shared map only, so threads and forked processes may share it."""

    def __init__(self, root: Path, record: ShardRecord, form: Form, writable: bool = False, mapped: bool = True):
        """Open the shard's file.

        Args:
            root: directory of the store.
            record: what the index says of it.
            form: of its slabs.
            writable: for writing too.
            mapped: whether `view` may map the file; if not, it reads.

        Raises:
            CacheError: the file is missing, cannot be opened, or is shorter than the index says.
        """
        self.record = record
        self.path = root / record.file
        self.form = form
        offsets = (record.offset, record.scale_offset)
        self._parts = [
            (offset, width * kind.itemsize)
            for offset, (width, kind) in zip(offsets, form.parts, strict=False)
            if offset is not None
        ]
        self._descriptor = -1
        self._mapped = mapped
        self._map: npt.NDArray[np.uint8] | None = None
        try:
            self._descriptor = os.open(self.path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            raise CacheError(f"cannot open the shard {self.path} ({error.strerror}); {REPAIR}") from error
        self.size = self._least_size()
        self._check_size()
        # Slabs are read whole and far apart: what the system would read ahead of them is wasted.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def write(self, row: int, stored: Stored) -> None:
        """Write one picture's layers.

        Args:
            row: where its first slab begins.
            stored: one slab a layer of the shard.

        Raises:
            CacheError: the disk is full or failed.
        """
        stride = self.form.stride(stored.data_LTC.shape[1])
        try:
            for array, (offset, width) in zip(stored.parts, self._parts, strict=True):
                if stride == array.shape[1]:
                    write_exactly(self._descriptor, array.data.cast("B"), offset + row * width)
                else:
                    for position, slab in enumerate(array):
                        write_exactly(self._descriptor, slab.data.cast("B"), offset + (row + position * stride) * width)
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error

    def read(self, entry: IndexEntry, position: int, out: Stored) -> None:
        """Read one slab into ``out``, which has one layer and is C-contiguous.

        Raises:
            CacheError: the disk failed, the file ends early, or the slab is not there.
        """
        try:
            for (start, size), part in zip(self.extents(entry, position), out.parts, strict=True):
                # In one call as a rule; what a first call left is rare, and worth no speed.
                if os.preadv(self._descriptor, [part.data], start) != size:
                    read_exactly(self._descriptor, part.data.cast("B"), start)
        except OSError as error:
            raise self._unreadable(error) from error

    def view(self, entry: IndexEntry, position: int) -> Stored:
        """One slab as read-only arrays over the mapped file, without a copy; L is 1.

        Where mapping is not safe it is read into memory.

        Raises:
            CacheError: the file was cut short since it was opened, or the slab is not there. A file that is cut short
                while a view of it is looked at ends the process (SIGBUS): nothing can be done about that from here.
        """
        if not self._mapped:
            slab = self.form.empty(1, entry.tokens)
            self.read(entry, position, slab)
            return slab
        self._check_size()
        if self._map is None:
            mapped = mmap.mmap(self._descriptor, self.size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._map = np.frombuffer(mapped, np.uint8)
        parts = [
            self._map[start : start + size].view(kind).reshape(1, entry.tokens, width)
            for (start, size), (width, kind) in zip(self.extents(entry, position), self.form.parts, strict=True)
        ]
        return Stored(*parts)

    def prefetch(self, entry: IndexEntry, position: int) -> None:
        """Let the system begin to read a slab; does not wait."""
        for start, size in self.extents(entry, position):
            os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_WILLNEED)

    def extents(self, entry: IndexEntry, position: int) -> list[tuple[int, int]]:
        """First byte and bytes of a slab's values, and of its scales if there are any."""
        row = entry.row + position * self.form.stride(entry.tokens)
        return [(offset + row * width, entry.tokens * width) for offset, width in self._parts]

    def sync(self, data_only: bool = False) -> None:
        """Wait until what was written is on the disk itself.

        Raises:
            CacheError: the disk is full or failed.
        """
        try:
            (os.fdatasync if data_only else os.fsync)(self._descriptor)
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error

    def _least_size(self) -> int:
        """Bytes that the file must have, lest it was cut short."""
        offset, width = self._parts[0]
        return offset + self.record.rows * width

    def _check_size(self) -> None:
        if (found := os.fstat(self._descriptor).st_size) < self.size:
            raise CacheError(f"the shard {self.path} has {found} bytes, expected at least {self.size}; {REPAIR}")

    def _unreadable(self, error: Exception) -> CacheError:
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
        return CacheError(f"cannot read the shard {self.path} ({reason}); {REPAIR}")


class PortableShard(Shard):
    """An open portable shard: HDF5 tells where a picture's slabs are, which are then read and never mapped."""

    def __init__(self, root: Path, record: ShardRecord, form: Form):
        """See `Shard`."""
        super().__init__(root, record, form, mapped=False)

    def _least_size(self) -> int:
        try:
            # No chunk cache: chunks are read past it. No lock: many network file systems cannot lock.
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=0)
        except (OSError, RuntimeError) as error:  # it knows by itself whether it was cut short
            raise self._unreadable(error) from error
        self._datasets: dict[str, Any] = {}
        return os.fstat(self._descriptor).st_size

    def extents(self, entry: IndexEntry, position: int) -> list[tuple[int, int]]:
        """See `Shard`.

        Raises:
            CacheError: the slab is not there, or has another size.
        """
        names, found = (entry.key, entry.key + KEY_SCALES), []
        try:
            for name, (width, kind) in zip(names, self.form.parts, strict=False):
                if name not in self._datasets:
                    self._datasets[name] = self._file[name].id
                chunk = self._datasets[name].get_chunk_info_by_coord((position, 0, 0))
                if chunk.size != (expected := entry.tokens * width * kind.itemsize):
                    raise OSError(f"{name} has {chunk.size} bytes in layer {position}, expected {expected}")
                found.append((chunk.byte_offset, chunk.size))
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise self._unreadable(error) from error
        return found
