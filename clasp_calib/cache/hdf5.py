"""HDF5 files of features: there whole or not at all, and saying whose they are. The only module that writes HDF5."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from clasp_calib.cache.disk import write_failed
from clasp_calib.cache.form import PAGE, Form
from clasp_calib.cache.precision import Precision, Stored
from clasp_calib.common.replacing import replaced

FORMAT = "clasp-calib features 2"
DATASET, SCALES = "x", "scale"
"""In a direct shard."""
KEY_SCALES = ".scale"
"""Behind a picture's key, in a portable shard."""


def create_direct(
    path: Path, rows: int, layers: Sequence[int], form: Form, identity: Mapping[str, str]
) -> tuple[int, int | None]:
    """Create a shard with all its space reserved.

    Where all pictures have the same tokens its datasets are [slots, L, stride, C], otherwise [rows, C].

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
    attributes: dict[str, Any] = {"axes": "row, channel", "layers": np.asarray(layers, dtype=np.int64)}
    shape: tuple[int, ...] = (rows,)
    if form.tokens is not None:
        stride = form.stride(form.tokens)
        shape = (rows // (stride * len(layers)), len(layers), stride)
        attributes |= {"axes": "slot, layer, token, channel", "tokens": form.tokens}
    offsets: dict[str, int] = {}

    def add(file: Any) -> int:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        # The values last, so that they end the file and a file cut short is known by its size.
        for name, (width, kind) in reversed(list(zip((DATASET, SCALES), form.parts, strict=False))):
            dataset = _dataset(file, name, (*shape, width), _type(form.precision, kind), layout)
            dataset.attrs.update(attributes)
            offsets[name] = dataset.id.get_offset()
        return offsets[DATASET] + rows * form.channels * form.precision.data.itemsize

    # meta_block_size: room for all metadata before the features.
    sizes = {"alignment_threshold": PAGE, "alignment_interval": PAGE, "meta_block_size": PAGE}
    failed = f"cannot reserve {rows * form.token_bytes / 2**20:.0f} MiB for {path}"
    _create(path, identity, add, failed, sizes)
    return offsets[DATASET], offsets.get(SCALES)


def create_portable(
    path: Path, pictures: Mapping[str, Stored], layers: Sequence[int], form: Form, identity: Mapping[str, str]
) -> None:
    """Write a shard of these pictures, a dataset [L, T, C] each, named by its key, in chunks of one layer.

    Arguments and errors as of `create_direct`; int8 has its scales in ``<key>.scale``.
    """

    def add(file: Any) -> int:
        file.attrs["layers"] = np.asarray(layers, dtype=np.int64)
        for key, stored in pictures.items():
            for name, array_LTC in zip((key, key + KEY_SCALES), stored.parts, strict=False):
                layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                layout.set_chunk((1, *array_LTC.shape[1:]))
                dataset = _dataset(file, name, array_LTC.shape, _type(form.precision, array_LTC.dtype), layout)
                for layer, slab_TC in enumerate(array_LTC):
                    dataset.id.write_direct_chunk((layer, 0, 0), slab_TC)
        return 0

    _create(path, identity, add, f"cannot write the shard {path}")


def described(path: Path) -> tuple[str, int, tuple[int, ...]]:
    """Whose a shard says it is, where its values begin (0 in a portable one), and of which layers they are.

    Raises:
        OSError, KeyError, RuntimeError, TypeError: it is not readable as HDF5.
    """
    with h5py.File(path, "r", locking=False) as file:
        values = file.get(DATASET)
        holder, offset = (file, 0) if values is None else (values, int(values.id.get_offset()))
        return file.attrs["id"], offset, tuple(int(layer) for layer in holder.attrs["layers"])


def _create(
    path: Path,
    identity: Mapping[str, str],
    add: Callable[[Any], int],
    failed: str,
    sizes: Mapping[str, int] | None = None,
) -> None:
    """Create a file, let ``add`` fill it, and reserve as many bytes as that says."""
    try:
        with replaced(path) as partial:
            # locking: nobody else knows of the temporary file, and some network file systems cannot lock.
            with h5py.File(partial, "w", locking=False, **(sizes or {})) as file:
                file.attrs["format"] = FORMAT
                file.attrs.update({name: identity[name] for name in ("id", "encoder", "precision")})
                size = add(file)
            if size:
                with partial.open("r+b") as plain:
                    os.posix_fallocate(plain.fileno(), 0, size)
    except (OSError, RuntimeError) as error:  # h5py reports some failed writes as RuntimeError
        raise write_failed(error, failed) from error


def _dataset(file: Any, name: str, shape: tuple[int, ...], kind: Any, layout: Any) -> Any:
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), layout))


def _type(precision: Precision, kind: "np.dtype[Any]") -> Any:
    """The HDF5 type of values or scales; bfloat16 is spelled out, since h5py has no name for it."""
    if precision.name != "bfloat16":
        return h5py.h5t.py_create(kind, logical=True)
    brain = h5py.h5t.IEEE_F32LE.copy()
    brain.set_fields(15, 7, 8, 0, 7)
    brain.set_size(2)
    brain.set_ebias(127)
    return brain
