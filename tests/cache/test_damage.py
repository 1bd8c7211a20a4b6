"""A flipped bit, a zeroed page, a shard cut short or lost, an index from elsewhere: found, named and mended."""

import errno
import os
import resource
import shutil
from functools import partial

import numpy as np
import pytest
from store_support import LAYERS, SHAPE, flip_bit, key_of, put, same, slot_bytes, writer

from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.errors import CacheError

pytestmark = pytest.mark.parametrize("layout", ["direct", "portable"])
PAGES = (64, 128)
"""A shape whose slabs are whole pages."""


def test_one_flipped_bit_is_found_named_and_just_this_slab_written_again(tmp_path, layout):
    with writer(tmp_path, shard_bytes=2 * slot_bytes(), layout=layout) as store:
        for numbers in ((0, 1), (2, 3), (4,)):
            put(store, numbers)
        shard = flip_bit(tmp_path, store, 3, 4)

        def fused(key, layers):
            return store.fused(key, layers, np.full((1, len(layers)), 0.5, np.float32))

        for reading in (store.read, fused):
            with pytest.raises(CacheError, match=rf"layer 4 of picture {key_of(3)} in {shard} .*cache repair"):
                reading(key_of(3), LAYERS)
        assert store.read(key_of(3), (1, 3)).shape == (2, *SHAPE)
        [found] = FeatureStore.open(tmp_path).verify()
        assert (found.key, found.layer, found.shard, found.row) == (key_of(3), 4, shard.name, len(LAYERS) * SHAPE[0])
        others = {path: path.read_bytes() for path in tmp_path.glob("*.h5") if path != shard}
        assert store.drop_damaged() == [found]
        assert store.missing(map(key_of, range(5))) == [key_of(3)]
        damaged = shard.read_bytes()
        assert same(store, 3, (1, 3)), "what was not damaged was dropped too"
        with pytest.raises(CacheError, match=r"has layers 1, 3 of picture .*, asked for layers 4"):
            store.read(key_of(3), LAYERS)
        put(store, [3, 5])
        assert all(same(store, number) for number in range(6))
        assert list(store.verify()) == []
    assert shard.read_bytes() == damaged, "what is damaged may still be wanted by somebody"
    if layout == "portable":
        assert all(path.read_bytes() == content for path, content in others.items())
    with FeatureStore.open(tmp_path) as store:
        assert all(same(store, number) for number in range(6))


def test_a_picture_of_which_everything_is_damaged_is_dropped(tmp_path, layout):
    with writer(tmp_path, layout=layout) as store:
        put(store, [1, 2])
        for layer in LAYERS:
            flip_bit(tmp_path, store, 2, layer)
        assert len(store.drop_damaged()) == 3
        assert store.pictures() == [key_of(1)]
        put(store, [2])
        assert same(store, 2)


@pytest.mark.parametrize("first", [0, 8192], ids=["superblock", "features"])
def test_a_zeroed_page_is_found_and_repaired(tmp_path, first, layout):
    with writer(tmp_path, shape=PAGES, layout=layout) as store:
        put(store, [1], shape=PAGES)
    with next(tmp_path.glob("*.h5")).open("r+b") as file:
        file.seek(first)
        file.write(bytes(4096))
    found = list(FeatureStore.open(tmp_path).verify())
    assert {damage.key for damage in found} == {key_of(1)}
    with writer(tmp_path, shape=PAGES, layout=layout) as store:
        assert store.drop_damaged() == found
        put(store, [1], shape=PAGES)
        assert same(store, 1)
        assert list(store.verify()) == []


@pytest.mark.parametrize("how", ["missing", "short"])
def test_a_lost_shard_is_forgotten_and_written_anew(tmp_path, how, layout):
    with writer(tmp_path, shard_bytes=2 * slot_bytes(), layout=layout) as store:
        for numbers in ((0, 1), (2, 3), (4,)):
            put(store, numbers)
    lost = tmp_path / "shard-00002.h5"
    if how == "missing":
        lost.unlink()
    else:
        os.truncate(lost, lost.stat().st_size - 100)
    with writer(tmp_path, shard_bytes=2 * slot_bytes(), layout=layout) as store:
        with pytest.raises(CacheError, match=r"shard-00002\.h5 .*cache repair"):
            store.read(key_of(2), LAYERS)
        assert {found.key for found in store.verify()} == {key_of(2), key_of(3)}
        assert {found.key for found in store.drop_damaged()} == {key_of(2), key_of(3)}
        assert store.missing(map(key_of, range(5))) == [key_of(2), key_of(3)]
        put(store, [2, 3])
        assert all(same(store, number) for number in range(5))
        assert not lost.exists()
    assert [path.name for path in tmp_path.glob("quarantine/*")] == ["shard-00002.h5"] * (how == "short")


def test_what_changes_between_two_reads_is_told_and_no_number_comes_of_it(tmp_path, layout):
    with writer(tmp_path, shape=PAGES, shard_bytes=2**20, layout=layout) as store:
        put(store, [1, 2], shape=PAGES)
    [shard] = tmp_path.glob("*.h5")
    reader = FeatureStore.open(tmp_path)
    weights = np.array([[0.5, 0.25, 0.25]], np.float32)
    right = reader.fused(key_of(1), LAYERS, weights)
    before, times = shard.read_bytes(), shard.stat()
    flip_bit(tmp_path, reader, 1, 3)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    for reading in (reader.read, lambda *what: reader.fused(*what, weights)):
        with pytest.raises(CacheError, match=r"layer 3 of picture .*shard-00001\.h5 .*cache repair"):
            reading(key_of(1), LAYERS)
    assert same(reader, 2)
    with shard.open("r+b") as file:
        file.write(before)
    assert np.array_equal(reader.fused(key_of(1), LAYERS, weights), right, equal_nan=True)
    os.truncate(shard, 9000)
    for reading in (reader.read, lambda *what: reader.fused(*what, weights)):
        with pytest.raises(CacheError, match=r"shard-00001\.h5 .*cache repair"):
            reading(key_of(2), LAYERS)


def test_a_slab_that_was_torn_only_while_it_was_read_is_no_damage(tmp_path, layout, monkeypatch):
    with writer(tmp_path, layout=layout) as store:
        put(store, [1, 2])
    read, torn = os.preadv, []

    def preadv(descriptor, buffers, at):
        moved = read(descriptor, buffers, at)
        if not torn:
            buffers[0][5] ^= 1
            torn.append(at)
        return moved

    with writer(tmp_path) as store:
        monkeypatch.setattr(os, "preadv", preadv)
        assert store.drop_damaged() == []
        assert torn
        assert same(store, 1)


@pytest.mark.parametrize("reason", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "preadv"])
def test_what_cannot_be_read_now_is_not_taken_for_damage(tmp_path, layout, monkeypatch, reason, call):
    with writer(tmp_path, shard_bytes=2 * slot_bytes(), layout=layout) as store:
        for numbers in ((0, 1), (2, 3)):
            put(store, numbers)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")}
    real = getattr(os, call)

    def fails(what, *given, **named):
        if call == "preadv" or str(what).endswith("shard-00002.h5"):
            raise OSError(reason, os.strerror(reason))
        return real(what, *given, **named)

    with writer(tmp_path) as store:
        monkeypatch.setattr(os, call, fails)
        for asked in (store.drop_damaged, lambda: list(store.verify())):
            with pytest.raises(CacheError, match=rf"cannot read .*{os.strerror(reason)}.*nothing was changed"):
                asked()
        monkeypatch.undo()
        assert list(store.verify()) == []
        assert all(same(store, number) for number in range(4))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")} == before


def test_any_number_of_shards_is_read_and_mended_with_few_open_files(tmp_path, layout):
    with writer(tmp_path, shard_bytes=1, layout=layout) as store:
        for number in range(40):
            put(store, [number])
        flip_bit(tmp_path, store, 7, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # What the tests themselves have open comes on top.
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, hard))
    try:
        with writer(tmp_path, shard_bytes=1) as store:
            assert [damage.key for damage in store.drop_damaged()] == [key_of(7)]
            put(store, [*range(39, -1, -1)])
            assert all(same(store, number) for number in range(40))
            assert list(store.verify()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_shards_of_another_cache_are_named_and_dropped(tmp_path, layout):
    for name in ("one", "other"):
        with writer(tmp_path / name, layout=layout) as store:
            put(store, [1, 2])
    index = "index.sqlite" if layout == "direct" else "index.jsonl"
    shutil.copy(tmp_path / "other" / index, tmp_path / "one" / index)
    with FeatureStore.open(tmp_path / "one") as store:
        found = list(store.verify())
    assert len(found) == 2 * len(LAYERS)
    assert all("belongs to another cache" in damage.reason for damage in found)
    with FeatureWriter.reopen(tmp_path / "one") as store:
        assert store.drop_damaged() == found
        assert store.missing([key_of(1), key_of(2)], LAYERS) == [key_of(1), key_of(2)]
    assert not list((tmp_path / "one").glob("shard-*"))
    assert len(list((tmp_path / "one").glob("quarantine/shard-*"))) == 1


@pytest.mark.parametrize("gone", [[1], [1, 2]])
@pytest.mark.parametrize("call", ["read", "fused", "prefetch", "verify"])
def test_what_a_writer_moves_between_looking_up_and_reading_is_no_damage(tmp_path, layout, call, gone, monkeypatch):
    with writer(tmp_path, layout=layout) as store:
        put(store, [1, 2])
    calls = {
        "read": lambda reader: same(reader, 1),
        "fused": lambda reader: reader.fused(key_of(1), LAYERS, np.eye(3, dtype=np.float32)).any(),
        "prefetch": lambda reader: reader.prefetch([key_of(1)], LAYERS) is None,
        "verify": lambda reader: not list(reader.verify()),
    }
    with FeatureStore.open(tmp_path) as reader:
        index = reader.opened.index

        def then_moved(once, look_up, asked):
            found = look_up(asked)
            once.undo()
            with writer(tmp_path) as store:
                store.forget(map(key_of, gone))
                put(store, [3])
                put(store, [1])
            return found

        with monkeypatch.context() as once:
            for name in ("entries", "entries_of"):
                once.setattr(index, name, partial(then_moved, once, getattr(index, name)))
            found = calls[call](reader)
        assert found
        assert same(reader, 1)
        assert same(reader, 3)
