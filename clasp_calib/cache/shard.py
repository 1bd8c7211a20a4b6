"""One open shard: slabs are read and written at their byte offsets, without HDF5.

libhdf5 touches a shard only while it is created under a temporary name (`clasp_calib.cache.hdf5`). Afterwards its
metadata never changes, so a writer that is killed at any moment leaves a file that every HDF5 tool can open. A direct
shard has room that is filled later; a portable one is written whole and never changed.

Shape suffixes: L layers of the shard, T tokens, C channels. A slab is one layer of one picture, [T, C]. A row is one
token; a picture takes ``stride`` rows a layer, layer after layer.
"""

import os
from pathlib import Path

import xxhash

from clasp_calib.cache.disk import (
    REPAIR,
    DamagedError,
    checksums,
    open_plain,
    read_exactly,
    unreadable,
    write_exactly,
    write_failed,
)
from clasp_calib.cache.form import Form
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.records import IndexEntry, ShardRecord

HEADER_BYTES = 2**26
"""More than any shard has besides features."""


class Shard:
    """An open shard. Positional reads and writes only, so threads and forked processes may share it."""

    def __init__(self, path: Path, record: ShardRecord, form: Form, writable: bool = False):
        """Open the shard's file.

        Args:
            path: of the file.
            record: what the index says of it.
            form: of its slabs.
            writable: for writing too.

        Raises:
            DamagedError: the file is missing, shorter than the index says, or was never found sound.
            CacheError: it cannot be opened now, or is no plain file.
        """
        self.path = path
        self.record = record
        self.form = form
        offsets = [offset for offset in (record.offset, record.scale_offset) if offset]
        widths = [width * kind.itemsize for width, kind in form.parts]
        if record.chunks is None and len(offsets) != len(widths):
            raise DamagedError(f"it is not known where in {path} features are; {REPAIR}")
        self._parts = list(zip(offsets, widths, strict=False))
        self._descriptor = -1
        self._descriptor = open_plain(path, os.O_RDWR if writable else os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size
        least = max(start + size for start, size in self._features())
        if self.size < least:
            raise DamagedError(f"{path} has {self.size} bytes, expected at least {least}; {REPAIR}")
        # Slabs are read whole and far apart: what the system would read ahead of them is wasted.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
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
                    continue
                for layer, slab in enumerate(array):
                    write_exactly(self._descriptor, slab.data.cast("B"), offset + (row + layer * stride) * width)
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error

    def read(self, entry: IndexEntry, position: int, out: Stored) -> None:
        """Read one slab, and compare what was read with its checksum; a second time from the disk if it differs.

        Nobody else can change ``out``, so what is in it afterwards is what was written.

        Args:
            entry: of a picture in this shard.
            position: of the layer among the shard's.
            out: where to, one layer; C-contiguous.

        Raises:
            DamagedError: the slab is not what was written.
            CacheError: it cannot be read now.
        """
        extents = self.extents(entry, position)
        try:
            for _ in range(2):
                # Both parts in any case, so that a file that ends early is no reason for another kind of error.
                there = [
                    read_exactly(self._descriptor, part.data.cast("B"), start)
                    for (start, _), part in zip(extents, out.parts, strict=True)
                ]
                if all(there) and checksums(out) == entry.checksum(position):
                    return
                for start, size in extents:
                    os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise unreadable(self.path, error) from error
        raise DamagedError(
            f"layer {self.record.layers[position]} of picture {entry.key} in {self.path} (row {entry.row}) is not what "
            f"was written; {REPAIR}"
        )

    def prefetch(self, entry: IndexEntry, position: int) -> None:
        """Let the system begin to read a slab; does not wait."""
        for start, size in self.extents(entry, position):
            os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_WILLNEED)

    def extents(self, entry: IndexEntry, position: int) -> list[tuple[int, int]]:
        """First byte and bytes of a slab's values, and of its scales if there are any.

        Raises:
            DamagedError: the slab is not there, or has another size.
        """
        if self.record.chunks is None:
            row = entry.row + position * self.form.stride(entry.tokens)
            return [(offset + row * width, entry.tokens * width) for offset, width in self._parts]
        found = list(self.record.chunks.get(entry.key, ()))[position :: len(self.record.layers)]
        expected = [entry.tokens * width * kind.itemsize for width, kind in self.form.parts]
        if [size for _, size in found] != expected:
            raise DamagedError(f"{self.path} lacks picture {entry.key}, or has it in another form; {REPAIR}")
        return found

    def header(self) -> bytes:
        """The xxh3-64 of everything in the file but features.

        Raises:
            DamagedError: features overlap, or there is too much besides them.
            CacheError: it cannot be read now.
        """
        digest, end, most = xxhash.xxh3_64(), 0, HEADER_BYTES
        for start, size in [*sorted(self._features()), (self.size, 0)]:
            most -= start - end
            if start < end or most < 0:
                raise DamagedError(f"{self.path} holds other things than the index says; {REPAIR}")
            between = bytearray(start - end)
            try:
                read_exactly(self._descriptor, memoryview(between), end)
            except OSError as error:
                raise unreadable(self.path, error) from error
            digest.update(between)
            end = start + size
        return digest.digest()

    def check_header(self) -> None:
        """Compare everything but features with its checksum; a second time if it differs.

        Raises:
            DamagedError: it is not what was written, or was never found sound.
            CacheError: it cannot be read now.
        """
        if all(self.header() != self.record.header for _ in range(2)):
            raise DamagedError(
                f"the header of {self.path} is not what was written: it is damaged, or belongs to another cache; "
                f"{REPAIR}"
            )

    def sync(self, data_only: bool = False) -> None:
        """Wait until what was written is on the disk itself.

        Raises:
            CacheError: the disk is full or failed.
        """
        try:
            (os.fdatasync if data_only else os.fsync)(self._descriptor)
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error

    def _features(self) -> list[tuple[int, int]]:
        """First byte and bytes of all stretches that are features."""
        if self.record.chunks is None:
            return [(offset, self.record.rows * width) for offset, width in self._parts]
        return [extent for found in self.record.chunks.values() for extent in found] or [(0, 0)]
