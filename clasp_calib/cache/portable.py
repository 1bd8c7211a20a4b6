"""One shard of a portable cache: a chunked HDF5 file that is written whole, under another name, and never changed.

A picture is a dataset named by its key, [L, T, C], in chunks of one layer; int8 has its scales in ``<key>.scale``.

Shape suffixes: L layers of the shard, T tokens, C channels.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clasp_calib.cache.disk import replace_synced, write_failed
from clasp_calib.cache.index import IndexEntry, ShardRecord
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.shard import FORMAT, REPAIR, Form, hdf5_type
from clasp_calib.common.errors import CacheError

SCALES = ".scale"


def create_portable_shard(
    path: Path, pictures: Mapping[str, Stored], layers: Sequence[int], form: Form, identity: Mapping[str, str]
) -> None:
    """Write a shard, complete or not at all.

    Args:
        path: the file to create.
        pictures: key -> slabs.
        layers: what its pictures have.
        form: of the slabs.
        identity: ``meta`` of the index; its ``id``, ``encoder`` and ``precision`` become attributes of the file.

    Raises:
        CacheError: the disk is full or cannot be written to.
    """
    import h5py

    partial = path.with_name(path.name + ".tmp")
    try:
        with h5py.File(partial, "w", locking=False) as file:
            file.attrs["format"] = FORMAT
            file.attrs.update({name: identity[name] for name in ("id", "encoder", "precision")})
            file.attrs["layers"] = np.asarray(layers, dtype=np.int64)
            for key, stored in pictures.items():
                _chunked(file, key, stored.data_LTC, hdf5_type(form.precision))
                if stored.scale_LTG is not None:
                    _chunked(file, key + SCALES, stored.scale_LTG, h5py.h5t.IEEE_F16LE)
        descriptor = os.open(partial, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        replace_synced(partial, path)
    except (OSError, RuntimeError) as error:  # h5py reports some failed writes as RuntimeError
        partial.unlink(missing_ok=True)
        raise write_failed(error, f"cannot write the shard {path}") from error


def _chunked(file: Any, name: str, array_LTC: "np.typing.NDArray[Any]", kind: Any) -> None:
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((1, *array_LTC.shape[1:]))
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    space = h5py.h5s.create_simple(array_LTC.shape)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, layout)
    for layer, slab_TC in enumerate(array_LTC):
        dataset.write_direct_chunk((layer, 0, 0), slab_TC)


class PortableShard:
    """An open portable shard, with the methods of `clasp_calib.cache.shard.Shard` that read. Threads take turns."""

    def __init__(self, root: Path, record: ShardRecord, form: Form):
        """Open the shard's file.

        Raises:
            CacheError: the file is missing, cut short, or no HDF5.
        """
        import h5py

        self.record = record
        self.path = root / record.file
        self.form = form
        self._datasets: dict[str, Any] = {}
        try:
            # No chunk cache: chunks are read past it. No lock: many network file systems cannot lock.
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=0)
        except (OSError, RuntimeError) as error:
            raise CacheError(f"cannot open the shard {self.path} ({_short(error)}); {REPAIR}") from error

    def read(self, entry: IndexEntry, position: int, out: Stored) -> None:
        """Read one slab into ``out``, which has one layer and is C-contiguous.

        Raises:
            CacheError: the disk failed, or the slab is not there.
        """
        try:
            for name, part in self._parts(entry, out):
                size = self._dataset(name).get_chunk_info_by_coord((position, 0, 0)).size
                if size != part.nbytes:
                    raise OSError(f"{name} has {size} bytes in layer {position}, expected {part.nbytes}")
                self._dataset(name).read_direct_chunk((position, 0, 0), out=part.reshape(-1).view(np.uint8))
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CacheError(f"cannot read the shard {self.path} ({_short(error)}); {REPAIR}") from error

    def view(self, entry: IndexEntry, position: int) -> Stored:
        """One slab, read into memory: what is not mapped cannot be taken away while it is looked at."""
        slab = self.form.precision.empty(1, entry.tokens, self.form.channels)
        self.read(entry, position, slab)
        return slab

    def prefetch(self, entry: IndexEntry, position: int) -> None:
        """Nothing: a network file system reads ahead as it likes."""

    def extents(self, entry: IndexEntry, position: int) -> Iterator[tuple[int, int]]:
        """First byte and bytes of a slab's values, and of its scales if there are any."""
        for name in (entry.key, entry.key + SCALES) if self.form.precision.grouped else (entry.key,):
            chunk = self._dataset(name).get_chunk_info_by_coord((position, 0, 0))
            yield int(chunk.byte_offset), int(chunk.size)

    def _parts(self, entry: IndexEntry, out: Stored) -> Iterator[tuple[str, "np.typing.NDArray[Any]"]]:
        yield entry.key, out.data_LTC
        if out.scale_LTG is not None:
            yield entry.key + SCALES, out.scale_LTG

    def _dataset(self, name: str) -> Any:
        if name not in self._datasets:
            self._datasets[name] = self._file[name].id
        return self._datasets[name]


def described(path: Path) -> tuple[str, int, tuple[int, ...]]:
    """Whose a portable shard says it is, 0 for its offset, and of which layers.

    Raises:
        OSError, KeyError, RuntimeError, TypeError: it is not readable as HDF5.
    """
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        return file.attrs["id"], 0, tuple(int(layer) for layer in file.attrs["layers"])


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
