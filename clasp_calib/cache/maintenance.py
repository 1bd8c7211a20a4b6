"""What is in a cache, what of it nobody uses, and how others can read it."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.errors import CacheError
from clasp_calib.common.progress import note
from clasp_calib.common.replacing import replaced


@dataclass(frozen=True)
class Contents:
    """What a cache holds."""

    pictures: int
    slabs: int
    """Pictures x layers."""
    layers: dict[int, int]
    """Layer -> pictures that have it."""
    tokens: int | None
    """Of every picture, None where they differ."""
    channels: int
    precision: str
    shards: int
    bytes_used: int
    bytes_reserved: int
    """Of the shard files."""
    encoder: str


def contents(root: Path) -> Contents:
    """Describe a cache without reading features.

    Raises:
        CacheError: there is none.
    """
    with FeatureStore.open(root) as store:
        index = store.opened.index
        layers: Counter[int] = Counter()
        tokens = 0
        for record in index.shards().values():
            for entry in index.entries_of(record.id):
                held = list(entry.held(record.layers))
                layers.update(held)
                tokens += len(held) * entry.tokens
        files = [root / record.file for record in index.shards().values()]
        return Contents(
            pictures=len(index.keys()),
            slabs=layers.total(),
            layers=dict(sorted(layers.items())),
            tokens=store.form.tokens,
            channels=store.form.channels,
            precision=store.precision.name,
            shards=len(files),
            bytes_used=tokens * store.form.token_bytes,
            bytes_reserved=sum(file.stat().st_size for file in files if file.exists()),
            encoder=store.encoder,
        )


def bring_up_to_date(root: Path) -> None:
    """Bring a cache of an older format to this one; one that cannot be written to stays as it is, and that is said.

    Raises:
        CacheError: there is none, or it is damaged.
    """
    with FeatureStore.open(root) as store:
        old = store.opened.old
    if old:
        try:
            FeatureWriter.reopen(root).close()
        except CacheError as error:
            note(f"the cache keeps its format: {error}")


def collect_garbage(root: Path, wanted: Collection[str]) -> tuple[int, int]:
    """Forget the pictures that are not ``wanted``, and give their room back to the disk.

    Returns:
        Pictures that were forgotten, and bytes that the disk got back.

    Raises:
        CacheError: there is no cache, somebody else writes to it, or the disk has no room for one more shard.
    """
    before = contents(root).bytes_reserved
    with FeatureWriter.reopen(root) as store:
        unused = [key for key in store.pictures() if key not in wanted]
        store.forget(unused)
        store.compact()
    return len(unused), before - contents(root).bytes_reserved


def export_manifest(root: Path, target: Path) -> int:
    """Write a kerchunk-style manifest: each slab's file, first byte and bytes, as zarr arrays ``<key>/<layer>``.

    int8 has a second array ``<key>/<layer>.scale``, float16, one scale for 64 channels. zarr has no bfloat16: its bits
    are given as integers.

    Returns:
        Number of slabs in it.

    Raises:
        CacheError: there is no cache.
    """
    refs: dict[str, Any] = {".zgroup": json.dumps({"zarr_format": 2})}
    slabs = 0
    with FeatureStore.open(root) as store:
        for key in store.pictures():
            refs[f"{key}/.zgroup"] = refs[".zgroup"]
            for layer, (entry, position) in store.opened.places(key).items():
                shard = store.opened.shard(entry.shard)
                parts = zip(("", ".scale"), shard.extents(entry, position), store.form.parts, strict=False)
                for suffix, (first, size), (width, kind) in parts:
                    array = _zarr_array([entry.tokens, width], kind.str)
                    refs[f"{key}/{layer}{suffix}/.zarray"] = json.dumps(array)
                    refs[f"{key}/{layer}{suffix}/0.0"] = [str(shard.path.resolve()), first, size]
                slabs += 1
    with replaced(target) as partial:
        partial.write_text(json.dumps({"version": 1, "refs": refs}), encoding="utf-8")
    return slabs


def export_safetensors(root: Path, target: Path) -> int:
    """Write one safetensors file a shard, with tensors ``<key>.<layer>`` as `Precision.decode` gives them.

    Returns:
        Number of slabs that were written.

    Raises:
        CacheError: there is no cache, or a slab of it is damaged.
    """
    from safetensors.torch import save_file

    target.mkdir(parents=True, exist_ok=True)
    slabs = 0
    with FeatureStore.open(root) as store:
        index = store.opened.index
        for record in index.shards().values():
            tensors = {}
            for entry in index.entries_of(record.id):
                held = list(entry.held(record.layers))
                for layer, layer_TC in zip(held, store.read(entry.key, held), strict=True):
                    tensors[f"{entry.key}.{layer}"] = layer_TC.contiguous()
            file = target / Path(record.file).with_suffix(".safetensors").name
            with replaced(file) as partial:
                save_file(tensors, partial, metadata={"encoder": store.encoder, "precision": store.precision.name})
            slabs += len(tensors)
    return slabs


def _zarr_array(shape: list[int], kind: str) -> dict[str, Any]:
    fixed = {"zarr_format": 2, "compressor": None, "filters": None, "fill_value": None, "order": "C"}
    return {**fixed, "shape": shape, "chunks": shape, "dtype": kind}
