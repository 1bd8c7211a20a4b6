"""Stores as older versions left them are read, checked without trusting their headers, and brought to this format."""

import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from store_support import LAYERS, flip_bit, key_of, put, same, writer

from clasp_calib.cache import old_headers
from clasp_calib.cache.lock import WriterLock
from clasp_calib.cache.maintenance import bring_up_to_date
from clasp_calib.cache.precision import precision_of
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.errors import CacheError

GOLDEN = Path(__file__).parent / "golden"
LAYOUTS = ("direct", "portable")


@pytest.fixture(params=LAYOUTS)
def old(request, tmp_path) -> Path:
    """A store of format 3: pictures 0 and 1 in one shard, 2 in another."""
    return Path(shutil.copytree(GOLDEN / f"format-3-{request.param}", tmp_path / "cache"))


def format_of(root: Path) -> str:
    return FeatureStore.open(root).opened.index.meta()["format"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_store_of_format_4_is_read_and_filled(tmp_path, capsys, layout):
    root = Path(shutil.copytree(GOLDEN / f"format-4-{layout}", tmp_path / "cache"))
    with FeatureStore.open(root) as store:
        assert list(store.verify()) == []
    with writer(root) as store:
        assert put(store, [1, 3]) == 1
        assert list(store.verify()) == []
        assert all(same(store, number) for number in range(4))
    assert not capsys.readouterr().err


def test_a_store_of_format_3_is_read_and_verified_as_it_is(old):
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with FeatureStore.open(old) as store:
        assert all(same(store, number) for number in range(3))
        assert list(store.verify()) == []
        flip_bit(old, store, 2, 3)
        assert [(damage.key, damage.layer) for damage in store.verify()] == [(key_of(2), 3)]
    before.pop("shard-00002.h5")
    assert all((old / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("upgraded", [False, True])
def test_int8_of_format_3(tmp_path, layout, upgraded):
    old = shutil.copytree(GOLDEN / f"format-3-{layout}-int8", tmp_path / "cache")
    if upgraded:
        FeatureWriter.reopen(old).close()
    with FeatureStore.open(old) as store:
        assert list(store.verify()) == []
        for number, tokens in ((0, 3), (1, 5)):
            values = np.random.default_rng(number).standard_normal((2, tokens, 70), np.float32)
            precision = precision_of("int8")
            expected = precision.decode(precision.encode(torch.from_numpy(values)))
            assert torch.equal(store.read(key_of(number), (2, 5)), expected)


def test_a_writer_brings_it_to_this_format_and_says_so(old, capsys):
    shards = {path: path.read_bytes() for path in old.glob("shard-*")}
    with writer(old) as store:
        assert all(same(store, number) for number in range(3))
    assert "brought from format 3 to 4" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in old.glob("shard-*")} == shards
    assert format_of(old) == "4"
    with writer(old) as store:
        assert put(store, [1, 3]) == 1
        assert list(store.verify()) == []
    assert "format" not in capsys.readouterr().err
    with FeatureStore.open(old) as store:
        assert all(same(store, number) for number in range(4))


def test_an_upgrade_killed_before_its_end_changes_nothing(old, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    index = "clasp_calib.common.journal.Journal.append" if (old / "index.jsonl").exists() else None
    monkeypatch.setattr(index or "clasp_calib.cache.index.Index._upgrade", killed)
    with pytest.raises(KeyboardInterrupt):
        writer(old)
    monkeypatch.undo()
    assert format_of(old) == "3"
    with writer(old) as store:
        assert all(same(store, number) for number in range(3))


def spoil(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize(("place", "bit"), [(4121, 2), pytest.param(921, 3, marks=pytest.mark.slow)])
def test_a_header_that_keeps_libhdf5_busy_is_told_in_seconds_and_its_shard_set_aside(
    tmp_path, capsys, monkeypatch, place, bit
):
    """With these bits, found by trying all, libhdf5 2.0 does not come to an end with this shard, or crashes."""
    monkeypatch.setattr(old_headers, "SECONDS", 1)
    root = Path(shutil.copytree(GOLDEN / "format-3-direct", tmp_path / "cache"))
    spoil(root / "shard-00001.h5", place, bit)
    began = time.monotonic()
    with FeatureStore.open(root) as store:
        assert all(same(store, number) for number in range(3)), "the features themselves are sound"
        found = list(store.verify())
    assert {damage.key for damage in found} == {key_of(0), key_of(1)}
    assert all("libhdf5 does not come to an end" in damage.reason for damage in found)
    with FeatureWriter.reopen(root) as store:
        assert len(store.drop_damaged()) == len(found)
        assert store.missing(map(key_of, range(3)), LAYERS) == [key_of(0), key_of(1)]
        assert same(store, 2)
    with writer(root) as store:
        put(store, [0, 1])
        assert list(store.verify()) == []
    assert time.monotonic() - began < 90
    assert "cache repair" in capsys.readouterr().err
    assert [path.name for path in (root / "quarantine").iterdir()] == ["shard-00001.h5"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_flipped_bit_of_a_header_is_found_without_libhdf5(tmp_path, monkeypatch, layout):
    root = tmp_path / "cache"
    with writer(root, layout=layout) as store:
        put(store, [0])
    monkeypatch.setattr("h5py.File", None)
    [shard] = root.glob("shard-*")
    sound = shard.read_bytes()
    with FeatureStore.open(root) as store:
        opened = store.opened.shard(1)
        features = [range(start, start + size) for start, size in opened._features()]
        places = [place for place in range(len(sound)) if not any(place in stretch for stretch in features)]
        assert len(places) > 1000
        for place in places:
            with shard.open("r+b") as file:
                file.seek(place)
                file.write(bytes([sound[place] ^ (1 << place % 8)]))
                file.flush()
                with pytest.raises(CacheError, match=r"header of .* is not what was written"):
                    opened.check_header()
                file.seek(place)
                file.write(sound[place : place + 1])
        opened.check_header()
        spoil(shard, places[30])
        assert {damage.reason[:10] for damage in store.verify()} == {"the header"}
    with FeatureWriter.reopen(root) as store:
        assert [damage.layer for damage in store.drop_damaged()] == list(LAYERS)
    assert [path.name for path in (root / "quarantine").iterdir()] == [shard.name]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_flipped_bits_of_an_old_header_never_hang_or_change_a_number(tmp_path, layout):
    for place in range(0, 4800, 61):
        root = Path(shutil.copytree(GOLDEN / f"format-3-{layout}", tmp_path / str(place)))
        spoil(root / "shard-00001.h5", place, place % 8)
        with FeatureWriter.reopen(root) as store:
            store.drop_damaged()
            held = [number for number in range(3) if not store.missing([key_of(number)], LAYERS)]
            assert 2 in held
            assert all(same(store, number) for number in held)
        shutil.rmtree(root)


def test_the_index_of_this_format_knows_every_header(tmp_path):
    with writer(tmp_path) as store:
        put(store, [0])
    with sqlite3.connect(tmp_path / "index.sqlite") as base:
        [(header,)] = base.execute("select header from shard").fetchall()
    base.close()
    assert len(header) == 8


def test_verify_brings_a_cache_to_this_format_where_it_may_be_written_to(old, capsys):
    lock = WriterLock(old)
    bring_up_to_date(old)
    assert "the cache keeps its format: the cache" in capsys.readouterr().err
    assert format_of(old) == "3"
    lock.release()
    for said in (1, 0):
        bring_up_to_date(old)
        assert capsys.readouterr().err.count("brought from format 3 to 4") == said
    assert format_of(old) == "4"
