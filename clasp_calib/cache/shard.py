"""One shard: an HDF5 file whose metadata is written once, and its features then at their byte offset.

libhdf5 touches a shard only while it is created under a temporary name. Afterwards its metadata never
changes, so a writer that is killed at any moment leaves a file that every HDF5 tool can open.

Shape suffixes: L layers of the shard, T tokens, C channels. A slab is one layer of one picture, [T, C]. A row
is one token; a picture takes ``stride`` rows a layer, layer after layer.
"""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clasp_calib.cache.disk import read_exactly, replace_synced, write_exactly, write_failed
from clasp_calib.cache.index import IndexEntry, ShardRecord
from clasp_calib.cache.precision import Precision, Stored, kept_as
from clasp_calib.common.errors import CacheError

DATASET, SCALES = "x", "scale"
FORMAT = "clasp-calib features 2"
PAGE = 4096
RAGGED = "ragged"
"""Stands for the tokens of a store whose pictures differ in them."""
REPAIR = "`clasp-calib cache repair` drops what is damaged, cache-features then encodes it again"


@dataclass(frozen=True)
class Form:
    """What all slabs of a store have in common."""

    channels: int
    precision: Precision
    tokens: int | None
    """Tokens of every picture, None where they differ."""

    @classmethod
    def of(cls, meta: Mapping[str, str]) -> Self:
        """What the index's ``meta`` says of it."""
        tokens = None if meta["tokens"] == RAGGED else int(meta["tokens"])
        return cls(int(meta["channels"]), kept_as(meta["precision"]), tokens)

    def stride(self, tokens: int) -> int:
        """Rows that a slab takes: its tokens, and up to a sixteenth more where that makes it end on a page."""
        return _stride(self.precision.data_row(self.channels), tokens)


@cache
def _stride(row_bytes: int, tokens: int) -> int:
    unit = PAGE // gcd(PAGE, row_bytes)
    padded = -(-tokens // unit) * unit
    return padded if (padded - tokens) * 16 <= tokens else tokens


def create_shard(
    path: Path, rows: int, layers: Sequence[int], form: Form, identity: Mapping[str, str]
) -> tuple[int, int | None]:
    """Create a shard with all its space reserved, complete or not at all.

    Where all pictures have the same tokens the dataset is [slots, L, stride, C], otherwise [rows, C].

    Args:
        path: the file to create.
        rows: tokens that there is room for, in all layers together.
        layers: what its pictures have.
        form: of the slabs.
        identity: ``meta`` of the index; its ``id``, ``encoder`` and ``precision`` become attributes of the file.

    Returns:
        The byte offsets of the values and of the scales, the latter None where there are none.

    Raises:
        CacheError: the disk is full or cannot be written to.
    """
    import h5py

    partial = path.with_name(path.name + ".tmp")
    precision, channels = form.precision, form.channels
    size = rows * (precision.data_row(channels) + precision.scale_row(channels))
    try:
        # meta_block_size: room for all metadata before the features, so that these end the file and a file
        # cut short is known by its size. locking: nobody else knows of the temporary file, and some network
        # file systems cannot lock.
        with h5py.File(
            partial,
            "w",
            alignment_threshold=PAGE,
            alignment_interval=PAGE,
            meta_block_size=PAGE,
            locking=False,
        ) as file:
            file.attrs["format"] = FORMAT
            file.attrs.update({name: identity[name] for name in ("id", "encoder", "precision")})
            scales = None
            if precision.grouped:
                scales = _contiguous(file, SCALES, rows, precision.groups(channels), h5py.h5t.IEEE_F16LE, layers, form)
            values = _contiguous(file, DATASET, rows, channels, hdf5_type(precision), layers, form)
        descriptor = os.open(partial, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, values + rows * precision.data_row(channels))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        replace_synced(partial, path)
    except (OSError, RuntimeError) as error:  # h5py reports some failed writes as RuntimeError
        partial.unlink(missing_ok=True)
        raise write_failed(error, f"cannot reserve {size / 2**20:.0f} MiB for {path}") from error
    return values, scales


def _contiguous(file: Any, name: str, rows: int, width: int, kind: Any, layers: Sequence[int], form: Form) -> int:
    """Add a dataset whose space is there from the start, and return its byte offset."""
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    shape: tuple[int, ...] = (rows, width)
    axes = "row, channel"
    if form.tokens is not None:
        stride = form.stride(form.tokens)
        shape, axes = (rows // (stride * len(layers)), len(layers), stride, width), "slot, layer, token, channel"
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, layout))
    dataset.attrs["axes"] = axes
    dataset.attrs["layers"] = np.asarray(layers, dtype=np.int64)
    if form.tokens is not None:
        dataset.attrs["tokens"] = form.tokens
    return int(dataset.id.get_offset())


def hdf5_type(precision: Precision) -> Any:
    """The HDF5 type of the values; bfloat16 is spelled out, since h5py has no name for it."""
    import h5py

    if precision.name != "bfloat16":
        return h5py.h5t.py_create(precision.data, logical=True)
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def described(path: Path) -> tuple[str, int, tuple[int, ...]]:
    """Whose a shard says it is, where its values begin, and of which layers they are.

    Raises:
        OSError, KeyError, RuntimeError, TypeError: it is not readable as HDF5.
    """
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        dataset = file[DATASET]
        return file.attrs["id"], int(dataset.id.get_offset()), tuple(int(layer) for layer in dataset.attrs["layers"])


class Shard:
    """An open shard. Positional reads and a shared map only, so threads and forked processes may share it."""

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
        self._data_row = form.precision.data_row(form.channels)
        self._scale_row = form.precision.scale_row(form.channels)
        self._descriptor = -1
        self._mapped = mapped
        self._map: npt.NDArray[np.uint8] | None = None
        try:
            self._descriptor = os.open(self.path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            raise CacheError(f"cannot open the shard {self.path} ({error.strerror}); {REPAIR}") from error
        self.size = record.offset + record.rows * self._data_row
        if (found := os.fstat(self._descriptor).st_size) < self.size:
            raise self._short(found)
        # Slabs are read whole and far apart: what the system would read ahead of them is wasted.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def _short(self, found: int) -> CacheError:
        return CacheError(f"the shard {self.path} has {found} bytes, expected at least {self.size}; {REPAIR}")

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
        parts = [(stored.data_LTC, self.record.offset, self._data_row)]
        if stored.scale_LTG is not None and self.record.scale_offset is not None:
            parts.append((stored.scale_LTG, self.record.scale_offset, self._scale_row))
        try:
            for array, offset, width in parts:
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
            CacheError: the disk failed or the file ends early.
        """
        try:
            for (start, size), part in zip(self.extents(entry, position), out, strict=False):
                # In one call as a rule; what a first call left is rare, and worth no speed.
                if part is not None and os.preadv(self._descriptor, [part.data], start) != size:
                    read_exactly(self._descriptor, part.data.cast("B"), start)
        except OSError as error:
            raise CacheError(f"cannot read the shard {self.path} ({error.strerror}); {REPAIR}") from error

    def view(self, entry: IndexEntry, position: int) -> Stored:
        """One slab as read-only arrays over the mapped file, without a copy; L is 1.

        Where mapping is not safe it is read into memory.

        Raises:
            CacheError: the file was cut short since it was opened. A file that is cut short while a view of it is
                looked at ends the process (SIGBUS): nothing can be done about that from here.
        """
        if not self._mapped:
            slab = self.form.precision.empty(1, entry.tokens, self.form.channels)
            self.read(entry, position, slab)
            return slab
        if (found := os.fstat(self._descriptor).st_size) < self.size:
            raise self._short(found)
        if self._map is None:
            mapped = mmap.mmap(self._descriptor, self.size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._map = np.frombuffer(mapped, np.uint8)
        kinds = (self.form.precision.data, np.dtype(np.float16))
        parts = [
            self._map[start : start + size].view(kind).reshape(1, entry.tokens, -1)
            for (start, size), kind in zip(self.extents(entry, position), kinds, strict=False)
        ]
        return Stored(*parts)

    def prefetch(self, entry: IndexEntry, position: int) -> None:
        """Let the system begin to read a slab; does not wait."""
        for start, size in self.extents(entry, position):
            os.posix_fadvise(self._descriptor, start, size, os.POSIX_FADV_WILLNEED)

    def extents(self, entry: IndexEntry, position: int) -> Iterator[tuple[int, int]]:
        """First byte and bytes of a slab's values, and of its scales if there are any."""
        row = entry.row + position * self.form.stride(entry.tokens)
        yield self.record.offset + row * self._data_row, entry.tokens * self._data_row
        if self.record.scale_offset is not None:
            yield self.record.scale_offset + row * self._scale_row, entry.tokens * self._scale_row

    def sync(self, data_only: bool = False) -> None:
        """Wait until what was written is on the disk itself.

        Raises:
            CacheError: the disk is full or failed.
        """
        try:
            (os.fdatasync if data_only else os.fsync)(self._descriptor)
        except OSError as error:
            raise write_failed(error, f"cannot write to the shard {self.path}") from error
