"""Putting and reading back, the identity of a store, damage and its repair."""

import errno
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from store_support import ENCODER, LAYERS, SHAPE, features, key_of, put, same, slot_bytes, writer

from clasp_calib.cache import index as index_module
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_was_put_is_read_bit_for_bit(data):
    shape = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 9)))
    layers = tuple(data.draw(st.lists(st.integers(0, 24), min_size=1, max_size=4, unique=True)))
    slots = data.draw(st.integers(0, 4))
    numbers = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    size = data.draw(st.integers(1, 4))
    with tempfile.TemporaryDirectory() as directory:
        with writer(Path(directory), layers, shape, shard_bytes=slots * slot_bytes(layers, shape)) as store:
            written = 0
            for start in range(0, len(numbers), size):
                written += put(store, numbers[start : start + size], layers, shape)
            assert written == len(set(numbers))
            assert store.missing(map(key_of, range(10))) == [key_of(n) for n in range(10) if n not in numbers]
            wanted = tuple(data.draw(st.permutations(layers)))
            assert all(same(store, number, wanted) for number in numbers)
        with FeatureStore.open(Path(directory)) as store:
            assert (store.form.tokens, store.form.channels) == shape
            assert store.layers == tuple(sorted(layers))
            assert all(same(store, number, wanted) for number in numbers)
            assert list(store.verify()) == []


def test_putting_again_changes_nothing(tmp_path):
    with writer(tmp_path) as store:
        assert put(store, [1, 2, 1]) == 2
        other = Stored(np.zeros((len(LAYERS), *SHAPE), np.float16))
        assert store.put([key_of(1), key_of(2)], [other, other]) == 0
        assert same(store, 1)
        assert same(store, 2)


def test_layers_that_come_later_go_to_their_own_shard(tmp_path):
    with writer(tmp_path, (1, 3)) as store:
        put(store, [1, 2], (1, 3))
    shards = {path: path.read_bytes() for path in tmp_path.glob("*.h5")}
    with writer(tmp_path, (3, 7, 1)) as store:
        assert store.missing([key_of(1), key_of(5)]) == [key_of(1), key_of(5)]
        put(store, [1, 5], (3, 7, 1))
        assert same(store, 1, (7, 1, 3))
        assert same(store, 5, (1, 7, 3))
        assert store.missing([key_of(1), key_of(2), key_of(5)]) == [key_of(2)]
    assert all(path.read_bytes() == content for path, content in shards.items())
    stored = [tuple(h5py.File(path)["x"].attrs["layers"]) for path in sorted(tmp_path.glob("*.h5"))]
    assert stored == [(1, 3), (7,), (1, 3, 7)]
    assert FeatureStore.open(tmp_path).layers == (1, 3, 7)
    with FeatureStore.open(tmp_path) as store:
        assert store.missing([key_of(1), key_of(2)]) == [key_of(2)]
        assert store.missing([key_of(1), key_of(2)], (3,)) == []


def test_any_hdf5_tool_reads_a_shard_that_is_being_written(tmp_path):
    store = writer(tmp_path)
    put(store, [4, 5])
    with h5py.File(next(tmp_path.glob("*.h5")), "r") as file:
        dataset = file["x"]
        assert dataset.dtype == "<f2"
        assert dataset.shape[1:] == (len(LAYERS), *SHAPE)
        assert dataset.chunks is None
        assert dataset.id.get_offset() % 4096 == 0
        assert list(dataset.attrs["layers"]) == list(LAYERS)
        assert file.attrs["encoder"] == ENCODER
        assert dataset[1].tobytes() == features(5).tobytes()
    put(store, [6])
    assert same(store, 6)
    store.close()


def test_a_shard_is_no_larger_than_what_is_expected(tmp_path):
    with writer(tmp_path, shard_bytes=4 * slot_bytes()) as store:
        store.reserve(map(key_of, range(6)))
        put(store, range(3))
        put(store, range(3, 6))
        put(store, [9])
    slots = [h5py.File(path)["x"].shape[0] for path in sorted(tmp_path.glob("*.h5"))]
    assert slots == [4, 2, 4]


def test_another_encoder_or_shape_is_refused(tmp_path):
    with writer(tmp_path) as store:
        put(store, [1])
    for opened in (lambda: FeatureStore.open(tmp_path, "other"), lambda: writer(tmp_path, encoder="other")):
        with pytest.raises(CacheError, match=r"made with the encoder \[an encoder\], asked for \[other\]; give"):
            opened()
    for shape, said in (((6, 9), "asked for 6 of 9"), ((None, 8), "asked for ragged of 8")):
        with pytest.raises(CacheError, match=f"holds 6 tokens of 8 channels a layer, {said}") as kept:
            writer(tmp_path, shape=shape)
    with pytest.raises(CacheError, match="keeps features as float16, asked for int8"):
        writer(tmp_path, precision="int8")
    with writer(tmp_path) as store:  # the refusal, whose traceback is still alive, holds no lock
        assert kept.value is not None
        assert same(store, 1)


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(CacheError, match="no feature cache at"):
        FeatureStore.open(tmp_path)
    (tmp_path / "index.sqlite").touch()
    with pytest.raises(CacheError, match="is empty; fill it"):
        FeatureStore.open(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(b"not a database, " * 200)
    with pytest.raises(CacheError, match="is damaged"):
        FeatureStore.open(tmp_path)
    with pytest.raises(CacheError, match="cannot make the directory"):
        writer(tmp_path / "index.sqlite" / "below")


@pytest.mark.parametrize("layout", ["direct", "portable"])
def test_a_newer_format_is_refused_by_its_name_even_with_tables_that_nobody_knows(tmp_path, layout):
    writer(tmp_path, layout=layout).close()
    if layout == "direct":
        with sqlite3.connect(tmp_path / "index.sqlite") as base:
            base.execute("update meta set value = '5' where name = 'format'")
            base.execute("create table more(name text)")
        base.close()
    else:
        line = json.loads((tmp_path / "index.jsonl").read_text().split(" ", 1)[1])
        (tmp_path / "index.jsonl").write_text(json.dumps({"meta": {**line["meta"], "format": "5"}}) + "\n")
    for opened in (FeatureStore.open, writer):
        with pytest.raises(CacheError, match="has format 5, this version reads 3 and 4"):
            opened(tmp_path)


def test_what_a_killed_writer_left_is_cleared_away_and_nothing_whole_is_lost(tmp_path, capsys):
    with writer(tmp_path) as store:
        put(store, [1])
    (tmp_path / "shard-00002.h5.half.tmp").mkdir()
    for name in ("shard-00002.h5", "shard-00002.h5.half.tmp/shard-00002.h5", "shard-of-mine.h5"):
        (tmp_path / name).write_bytes(b"half made")
    for _ in range(2):
        with FeatureStore.open(tmp_path), writer(tmp_path) as store:
            assert same(store, 1)
            put(store, [2])
        shutil.copy(tmp_path / "shard-00001.h5", tmp_path / "shard-00002.h5")
        with sqlite3.connect(tmp_path / "index.sqlite") as base:
            base.execute("delete from entry where shard = 2")
            base.execute("delete from shard where id = 2")
        base.close()
    assert {path.name for path in tmp_path.glob("shard-*")} == {"shard-00001.h5", "shard-00002.h5", "shard-of-mine.h5"}
    kept = sorted((tmp_path / "quarantine").iterdir())
    assert [path.name for path in kept] == ["shard-00002.h5", "shard-00002.h5.1"]
    assert kept[0].read_bytes() == b"half made"
    assert f"shard-00002.h5 is moved to {kept[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["removed", "without a byte"])
@pytest.mark.parametrize("layout", ["direct", "portable"])
def test_shards_without_their_index_are_kept(tmp_path, layout, lost):
    with writer(tmp_path, layout=layout) as store:
        put(store, [1])
    (index,) = tmp_path.glob("index.*")
    index.unlink() if lost == "removed" else index.write_bytes(b"")
    with pytest.raises(CacheError, match=rf"1 shards but no {index.name}"):
        writer(tmp_path, layout=layout)
    assert list(tmp_path.glob("*.h5"))


def test_what_is_not_there_is_named(tmp_path):
    with writer(tmp_path) as store:
        put(store, [1])
        with pytest.raises(CacheError, match=rf"has layers 1, 3, 4 of picture {key_of(1)}, asked for layers 9, 2;"):
            store.read(key_of(1), (3, 9, 2))
        with pytest.raises(CacheError, match="has nothing of picture"):
            store.read(key_of(2), LAYERS)


def test_features_of_another_form_are_refused(tmp_path):
    with writer(tmp_path) as store:
        for wrong in (features(1).astype(np.float32), features(1, (1, 3)), features(1)[None]):
            with pytest.raises(CacheError, match=r"expected float16 \(3, 6, 8\)"):
                store.put([key_of(1)], [Stored(wrong)])
        transposed = np.asfortranarray(features(1))
        store.put([key_of(1)], [Stored(transposed)])
        assert same(store, 1)


def test_short_writes_and_reads_are_continued(tmp_path, monkeypatch):
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, buffer, at: write(file, buffer[: max(1, len(buffer) // 3)], at))
    monkeypatch.setattr(
        os, "preadv", lambda file, buffers, at: read(file, [buffers[0][: max(1, len(buffers[0]) // 3)]], at)
    )
    with writer(tmp_path) as store:
        put(store, [1, 2])
        assert same(store, 1)
        assert same(store, 2)


def test_an_interrupt_just_after_the_commit_does_no_harm(tmp_path, monkeypatch):
    with writer(tmp_path) as store:
        change = index_module.Index.change

        def interrupted(index, shards=(), entries=(), **rest):
            change(index, shards, entries, **rest)
            if entries:
                raise KeyboardInterrupt

        monkeypatch.setattr(index_module.Index, "change", interrupted)
        with pytest.raises(KeyboardInterrupt):
            put(store, [0, 1])
        monkeypatch.undo()
        assert put(store, [0, 1, 2]) == 1
        assert all(same(store, number) for number in range(3))


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_says_so_and_loses_nothing(tmp_path, monkeypatch, call):
    with writer(tmp_path, shard_bytes=2 * slot_bytes()) as store:
        put(store, [0, 1])

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, full)
        with pytest.raises(CacheError, match=r"No space left on device\); make room .* stays"):
            put(store, [2, 3])
        monkeypatch.undo()
        assert same(store, 0)
        assert store.missing(map(key_of, range(4))) == [key_of(2), key_of(3)]
        assert not list(tmp_path.glob("*.tmp"))
        put(store, [2, 3])
        assert same(store, 3)
    assert len(list(tmp_path.glob("*.h5"))) == 2


def test_a_really_full_disk(tmp_path):
    with (
        writer(tmp_path, shard_bytes=2**62) as store,
        pytest.raises(CacheError, match=r"cannot reserve \d+ MiB"),
    ):
        put(store, [0])
    assert not list(tmp_path.glob("shard*"))


def test_a_finished_cache_is_read_from_a_read_only_directory(tmp_path, monkeypatch):
    with writer(tmp_path) as store:
        put(store, [1])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.sqlite",
        "shard-00001.h5",
        "writer.lock",
    ]
    monkeypatch.setattr(index_module.os, "access", lambda *_: False)
    with FeatureStore.open(tmp_path) as store:
        assert same(store, 1)
    assert not (tmp_path / "index.sqlite-shm").exists()


def test_more_shards_than_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr("clasp_calib.cache.open_store.OPEN_SHARDS", 2)
    with writer(tmp_path, shard_bytes=slot_bytes()) as store:
        put(store, range(6))
        before = len(os.listdir("/proc/self/fd"))
        assert all(same(store, number) for number in (*range(6), *range(6)))
        assert len(os.listdir("/proc/self/fd")) <= before + 2
