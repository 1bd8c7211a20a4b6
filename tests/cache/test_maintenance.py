"""What is in a cache, what of it is unused, whose it is, and how others read it."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from store_support import LAYERS, SHAPE, key_of, put, same, slot_bytes, writer

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


def test_what_no_sample_uses_is_forgotten_and_empty_shards_are_removed(tmp_path):
    with writer(tmp_path, shard_bytes=2 * slot_bytes()) as store:
        put(store, range(6))
    reader = FeatureStore.open(tmp_path)
    assert same(reader, 3)
    forgotten, freed = collect_garbage(tmp_path, {key_of(0), key_of(4), key_of(5), key_of(99)})
    assert forgotten == 3
    assert freed > 0
    assert {path.name for path in tmp_path.glob("shard-*")} == {"shard-00001.h5", "shard-00003.h5"}
    assert all(same(reader, number) for number in (0, 4, 5))
    with pytest.raises(CacheError, match="has nothing of picture"):
        reader.read(key_of(3), LAYERS)
    with writer(tmp_path) as store:
        put(store, [7])
        assert same(store, 7)
    assert len(list(tmp_path.glob("shard-*"))) == 2, "the free room was not used"


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


def test_shards_of_another_cache_are_named_and_dropped(tmp_path):
    for name in ("one", "other"):
        with writer(tmp_path / name) as store:
            put(store, [1, 2])
    shutil.copy(tmp_path / "other" / "index.sqlite", tmp_path / "one" / "index.sqlite")
    with FeatureStore.open(tmp_path / "one") as store:
        found = list(store.verify())
    assert len(found) == 2 * len(LAYERS)
    assert all("belongs to another cache" in damage.reason for damage in found)
    with FeatureStore.reopen(tmp_path / "one") as store:
        assert store.drop_damaged() == found
        assert store.missing([key_of(1), key_of(2)], LAYERS) == [key_of(1), key_of(2)]
    assert not list((tmp_path / "one").glob("shard-*"))


@pytest.mark.parametrize("first", [0, 4096], ids=["superblock", "features"])
def test_a_zeroed_page_is_found_and_repaired(tmp_path, first):
    shape = (64, 128)
    with writer(tmp_path, shape=shape) as store:
        put(store, [1], shape=shape)
    with next(tmp_path.glob("*.h5")).open("r+b") as file:
        file.seek(first)
        file.write(bytes(4096))
    found = list(FeatureStore.open(tmp_path).verify())
    assert {damage.key for damage in found} == {key_of(1)}
    with writer(tmp_path, shape=shape) as store:
        assert store.drop_damaged() == found
        put(store, [1], shape=shape)
        assert same(store, 1)
        assert list(store.verify()) == []


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8"])
def test_exports_hold_the_bytes_of_the_cache(tmp_path, name):
    precision = precision_of(name)
    values = torch.randn(2, 5, 70, generator=torch.Generator().manual_seed(0))
    stored = precision.encode(values)
    given = {"encoder": "e", "layers": (3, 8), "shape": (None, 70), "precision": name}
    with FeatureStore.open(tmp_path / "cache", "w", **given) as store:
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
