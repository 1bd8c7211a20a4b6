"""What is in a cache, what of it is unused, whose it is, and how others read it."""

import json

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from store_support import LAYERS, SHAPE, key_of, put, same, slot_bytes, writer

from clasp_calib.cache.index import Index
from clasp_calib.cache.maintenance import collect_garbage, contents, export_manifest, export_safetensors
from clasp_calib.cache.precision import precision_of
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError


def test_contents_count_pictures_layers_and_bytes(tmp_path):
    with writer(tmp_path, shard_bytes=2 * slot_bytes()) as store:
        put(store, range(5))
    with writer(tmp_path, (9,)) as store:
        put(store, [0, 1], (9,))
    known = contents(tmp_path)
    assert (known.pictures, known.slabs, known.shards) == (5, 17, 4)
    assert known.layers == {1: 5, 3: 5, 4: 5, 9: 2}
    assert known.bytes_used == 17 * SHAPE[0] * SHAPE[1] * 2
    assert known.bytes_reserved == sum(path.stat().st_size for path in tmp_path.glob("*.h5"))


@pytest.mark.parametrize("layout", ["direct", "portable"])
def test_what_no_sample_uses_is_forgotten_and_its_room_given_back(tmp_path, layout):
    with writer(tmp_path, shard_bytes=4 * slot_bytes(), layout=layout) as store:
        for numbers in ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)):
            put(store, numbers)
    before = sum(path.stat().st_size for path in tmp_path.glob("shard-*"))
    reader = FeatureStore.open(tmp_path)
    assert same(reader, 3)
    wanted = {*map(key_of, (0, 1, 4, 5, 6)), key_of(99)}
    forgotten, freed = collect_garbage(tmp_path, wanted)
    assert forgotten == 7
    assert freed == before - sum(path.stat().st_size for path in tmp_path.glob("shard-*")) > 0
    # Of two pictures one takes the room that is free beside three others, where shards are filled in place.
    assert {path.name for path in tmp_path.glob("shard-*")} == {"shard-00002.h5", "shard-00004.h5"}
    if layout == "direct":
        slots = [h5py.File(path)["x"].shape[0] for path in sorted(tmp_path.glob("*.h5"))]
        assert slots == [4, 1]
    assert all(same(reader, number) for number in (0, 1, 4, 5, 6))
    with pytest.raises(CacheError, match="has nothing of picture"):
        reader.read(key_of(3), LAYERS)
    assert list(reader.verify()) == []
    assert collect_garbage(tmp_path, wanted) == (0, 0)


def test_forgotten_room_is_used_again(tmp_path):
    with writer(tmp_path, shard_bytes=4 * slot_bytes()) as store:
        put(store, range(4))
        store.forget([key_of(1), key_of(2)])
        put(store, [7, 8])
        assert all(same(store, number) for number in (0, 3, 7, 8))
    assert len(list(tmp_path.glob("shard-*"))) == 1


def test_an_interrupted_compaction_loses_nothing(tmp_path, monkeypatch):
    with writer(tmp_path, shard_bytes=4 * slot_bytes()) as store:
        put(store, range(4))
        put(store, range(4, 8))
        store.forget(map(key_of, (1, 2, 3, 5, 6)))
        change = Index.change

        def interrupted(index, *given, **named):
            if named.get("forget_shards"):
                raise KeyboardInterrupt
            change(index, *given, **named)

        monkeypatch.setattr(Index, "change", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
        monkeypatch.undo()
        assert all(same(store, number) for number in (0, 4, 7))
        put(store, [20, 21])
        store.compact()
    with writer(tmp_path, shard_bytes=4 * slot_bytes()) as store:
        assert all(same(store, number) for number in (0, 4, 7, 20, 21))
        assert list(store.verify()) == []


def test_a_reader_sees_what_was_written_where_a_forgotten_picture_was(tmp_path):
    with writer(tmp_path, shard_bytes=2 * slot_bytes()) as store:
        put(store, [0, 1])
    reader = FeatureStore.open(tmp_path)
    assert same(reader, 0)
    collect_garbage(tmp_path, {key_of(1)})
    with writer(tmp_path, shard_bytes=2 * slot_bytes()) as store:
        put(store, [2])
    assert same(reader, 2)
    assert reader.missing([key_of(0)], LAYERS) == [key_of(0)]


@pytest.mark.parametrize("layout", ["direct", "portable"])
@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8"])
def test_exports_hold_the_bytes_of_the_cache(tmp_path, name, layout):
    precision = precision_of(name)
    values = torch.randn(2, 5, 70, generator=torch.Generator().manual_seed(0))
    stored = precision.encode(values)
    with writer(tmp_path / "cache", (3, 8), (None, 70), precision=name, layout=layout) as store:
        store.put(["a"], [stored])
    assert export_manifest(tmp_path / "cache", tmp_path / "manifest.json") == 2
    refs = json.loads((tmp_path / "manifest.json").read_text())["refs"]
    for at, layer in enumerate((3, 8)):
        for suffix, part in zip(("", ".scale"), stored, strict=True):
            if part is None:
                continue
            array = json.loads(refs[f"a/{layer}{suffix}/.zarray"])
            file, first, size = refs[f"a/{layer}{suffix}/0.0"]
            with open(file, "rb") as shard:
                shard.seek(first)
                got = np.frombuffer(shard.read(size), array["dtype"]).reshape(array["shape"])
            assert np.array_equal(got.view(np.uint8), part[at].view(np.uint8))
    if name != "bfloat16":  # numpy has no bfloat16
        assert export_safetensors(tmp_path / "cache", tmp_path / "out") == 2
        tensors = load_file(tmp_path / "out" / "shard-00001.safetensors")
        assert np.array_equal(tensors["a.8"], precision.decode(stored)[1].numpy())
