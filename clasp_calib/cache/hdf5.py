"""HDF5 files of features. The only module that writes HDF5, and none reads it: the index tells where features are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from clasp_calib.cache.disk import write_failed
from clasp_calib.cache.form import PAGE, Form
from clasp_calib.cache.precision import Precision
from clasp_calib.cache.records import ShardRecord, shard_name
from clasp_calib.cache.shard import Shard

FORMAT = "clasp-calib features 2"
DATASET, SCALES = "x", "scale"


def create_shard(
    path: Path,
    number: int,
    rows: int,
    layers: Sequence[int],
    form: Form,
    identity: Mapping[str, str],
    reserve: bool = True,
) -> ShardRecord:
    """Create a shard.

    Where all pictures have the same tokens its datasets are [slots, L, stride, C], otherwise [rows, C].

    Args:
        path: the file to create; nobody else may know of it yet.
        number: of the shard.
        rows: tokens that there is room for, in all layers together.
        layers: what its pictures have.
        form: of the slabs.
        identity: ``meta`` of the index; its ``id``, ``encoder`` and ``precision`` become attributes of the file.
        reserve: let the disk set all its space aside.

    Returns:
        What the index is to know of it.

    Raises:
        CacheError: the disk is full or cannot be written to.
    """
    attributes: dict[str, Any] = {"axes": "row, channel", "layers": np.asarray(layers, dtype=np.int64)}
    shape: tuple[int, ...] = (rows,)
    if form.tokens is not None:
        stride = form.stride(form.tokens)
        shape = (rows // (stride * len(layers)), len(layers), stride)
        attributes |= {"axes": "slot, layer, token, channel", "tokens": form.tokens}
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    offsets: dict[str, int] = {}
    # meta_block_size: room for all metadata before the features.
    sizes = {"alignment_threshold": PAGE, "alignment_interval": PAGE, "meta_block_size": PAGE}
    try:
        # locking: nobody else knows of the file, and some network file systems cannot lock.
        with h5py.File(path, "w", locking=False, **sizes) as file:
            file.attrs["format"] = FORMAT
            file.attrs.update({name: identity[name] for name in ("id", "encoder", "precision")})
            # The values last, so that they end the file and a file cut short is known by its size.
            for name, (width, kind) in reversed(list(zip((DATASET, SCALES), form.parts, strict=False))):
                space = h5py.h5s.create_simple((*shape, width))
                made = h5py.h5d.create(file.id, name.encode(), _type(form.precision, kind), space, layout)
                h5py.Dataset(made).attrs.update(attributes)
                offsets[name] = made.get_offset()
        if reserve:
            with path.open("r+b") as plain:
                size = offsets[DATASET] + rows * form.channels * form.precision.data.itemsize
                os.posix_fallocate(plain.fileno(), 0, size)
    except (OSError, RuntimeError) as error:  # h5py reports some failed writes as RuntimeError
        raise write_failed(error, f"cannot reserve {rows * form.token_bytes / 2**20:.0f} MiB for {path}") from error
    of = tuple(map(int, layers))
    record = ShardRecord(number, shard_name(number), offsets[DATASET], offsets.get(SCALES), rows, of)
    return replace(record, header=Shard(path, record, form).header())


def _type(precision: Precision, kind: "np.dtype[Any]") -> Any:
    """The HDF5 type of values or scales; bfloat16 is spelled out, since h5py has no name for it."""
    if precision.name != "bfloat16":
        return h5py.h5t.py_create(kind, logical=True)
    brain = h5py.h5t.IEEE_F32LE.copy()
    brain.set_fields(15, 7, 8, 0, 7)
    brain.set_size(2)
    brain.set_ebias(127)
    return brain
