"""An index that was made to do harm, or is damaged: refused before anything is touched, inside the cache or outside."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
from store_support import LAYERS, key_of, put, same, slot_bytes, writer

from clasp_calib.cache.maintenance import collect_garbage, contents, export_safetensors
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.errors import CacheError


@pytest.fixture
def outside(tmp_path) -> Path:
    victim = tmp_path / "victim.h5"
    victim.write_bytes(b"somebody else's" * 1000)
    return victim


def filled(root: Path, layout: str = "direct") -> Path:
    with writer(root, shard_bytes=2 * slot_bytes(), layout=layout) as store:
        for numbers in ((0, 1), (2, 3)):
            put(store, numbers)
    return root


def state(place: Path) -> dict[Path, bytes]:
    own = ("index", "writer")
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and not path.name.startswith(own)}


def used(root: Path):
    """All that reads or changes a cache."""

    def read():
        with FeatureStore.open(root) as store:
            for key in store.pictures():
                store.read(key, LAYERS)
            list(store.verify())

    def put_more():
        with writer(root, shard_bytes=2 * slot_bytes()) as store:
            put(store, [0, 1, 2, 3, 4, 5])

    def repair():
        with FeatureWriter.reopen(root) as store:
            store.drop_damaged()

    return {
        "read": read,
        "repair": repair,
        "put": put_more,
        "gc": lambda: collect_garbage(root, []),
        "contents": lambda: contents(root),
        "export": lambda: export_safetensors(root, root.parent / "out"),
    }


def outcome(use) -> str:
    """What the refusal says, nothing if there was none."""
    try:
        use()
    except CacheError as error:
        return str(error).splitlines()[0]
    return ""


def attempts(root: Path, before: dict[Path, bytes], refused: set[str]) -> None:
    for name, use in used(root).items():
        assert outcome(use) or name not in refused, f"{name} took it"
        assert {path: state(root.parent).get(path) for path in before} == before, f"{name} changed something"


ALL = {"read", "repair", "put", "gc", "contents", "export"}


@pytest.mark.parametrize(
    "change",
    [
        "update shard set file = '../victim.h5' where id = 1",
        "update shard set file = 'quarantine/../../victim.h5' where id = 1",
        "update shard set file = '{victim}' where id = 2",
        "update shard set file = 'shard-00003.h5' where id = 2",
        "update shard set file = x'2e2e' where id = 2",
        "update shard set file = 'shard-00001.h5' || char(0) where id = 1",
        "update shard set layers = '[1, 3, 3]' where id = 1",
        "update shard set layers = '{{}}' where id = 1",
        "update shard set layers = 'no json' where id = 1",
        "update shard set layers = '[1, 3, -4]' where id = 1",
        "update shard set rows = 'many' where id = 1",
        "update shard set rows = 9223372036854775807",
        "update shard set rows = -1",
        "update shard set offset = 'x'",
        "update shard set offset = -4096",
        "update shard set offset = 4096.5",
        "update shard set header = 'text'",
        "update shard set chunks = '[1, 2]'",
        "update meta set value = '-6' where name = 'tokens'",
        "update meta set value = '1e3' where name = 'channels'",
        "update meta set value = 'float128' where name = 'precision'",
        "delete from meta where name = 'channels'",
        "create view more as select * from entry",
        "create trigger harm after delete on entry begin delete from shard; end",
        "drop table entry",
    ],
)
def test_what_is_out_of_bounds_is_refused_before_anything_is_touched(tmp_path, outside, change):
    root = filled(tmp_path / "cache")
    base = sqlite3.connect(root / "index.sqlite")
    with base:
        base.execute(change.format(victim=outside))
    base.close()
    attempts(root, state(tmp_path), ALL)


@pytest.mark.parametrize(
    "change",
    [
        "update entry set row = 10000000 where rowid_of",
        "update entry set row = -1 where rowid_of",
        "update entry set row = 'x' where rowid_of",
        "update entry set tokens = 7 where rowid_of",
        "update entry set tokens = 281474976710655 where rowid_of",
        "update entry set shard = 77 where rowid_of",
        "update entry set shard = 'x' where rowid_of",
        "update entry set key = '../../victim' where rowid_of",
        "update entry set key = x'00ff' where rowid_of",
        "update entry set checksums = x'00' where rowid_of",
        "update entry set checksums = 'text' where rowid_of",
    ],
)
def test_an_entry_that_reaches_out_of_its_shard_is_refused(tmp_path, outside, change):
    root = filled(tmp_path / "cache")
    base = sqlite3.connect(root / "index.sqlite")
    with base:
        base.execute(change.replace("rowid_of", f"key = '{key_of(1)}'"))
    base.close()
    attempts(root, state(tmp_path), {"read", "repair"})


def test_another_programs_database_is_left_alone(tmp_path):
    root = tmp_path / "cache"
    root.mkdir()
    base = sqlite3.connect(root / "index.sqlite")
    with base:
        base.execute("create table cookies(host text)")
    base.close()
    before = (root / "index.sqlite").read_bytes()
    for opened in (FeatureStore.open, writer):
        with pytest.raises(CacheError, match="has other tables than a cache's index"):
            opened(root)
    assert (root / "index.sqlite").read_bytes() == before


def test_a_value_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    root = filled(tmp_path / "cache")
    monkeypatch.setattr("clasp_calib.cache.index._LONGEST", 10**5)
    base = sqlite3.connect(root / "index.sqlite")
    with base:
        base.execute("update entry set origin = zeroblob(400000)")
    base.close()
    with FeatureStore.open(root) as store, pytest.raises(CacheError, match="damaged"):
        store.read(key_of(1), LAYERS)


@pytest.mark.parametrize("name", ["shard-00001.h5", "index.sqlite", "index.sqlite-wal", "writer.lock"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_are_not_followed(tmp_path, outside, name, kind):
    root = filled(tmp_path / "cache")
    (root / name).unlink(missing_ok=True)
    if kind == "link":
        (root / name).symlink_to(outside)
    else:
        os.mkfifo(root / name)
    # A shard that nobody has to read or fill may be forgotten, or stand beside new ones.
    attempts(root, {outside: outside.read_bytes()}, {"repair"} if name.startswith("shard") else {"put", "repair"})


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line["shards"][0].update(file="../victim.h5"),
        lambda line: line["shards"][0].update(file="/etc/passwd"),
        lambda line: line["shards"][0].update(rows=2**70),
        lambda line: line["shards"][0].update(layers={"1": 2}),
        lambda line: line["shards"][0].update(more=1),
        lambda line: line["entries"][0].update(row=True),
        lambda line: line["entries"][0].update(tokens=None),
        lambda line: line["entries"][0].update(checksums="zz"),
        lambda line: line["entries"][0].update(origin=[[[[]]]] * 1000),
        lambda line: line["entries"][0].update(key="a/b"),
        lambda line: line.update(shards="text"),
        lambda line: line.update(forget=[[1]]),
        lambda line: line.update(forget_shards=[{}]),
        lambda line: line.update(meta={"format": 4}),
    ],
)
def test_a_portable_index_is_believed_no_more(tmp_path, outside, change):
    root = filled(tmp_path / "cache", "portable")
    lines = [json.loads(line.split(" ", 1)[1]) for line in (root / "index.jsonl").open()]
    change(lines[1])
    (root / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    attempts(root, state(tmp_path), {"read", "repair", "put"})


@pytest.mark.parametrize(
    "line", [b'{"entries": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"shards": [' + b"9" * 5000]
)
def test_a_portable_index_that_is_nested_deep_or_has_huge_numbers_is_refused(tmp_path, line):
    root = filled(tmp_path / "cache", "portable")
    (root / "index.jsonl").write_bytes(line + b"\n")
    attempts(root, state(tmp_path), ALL)


def test_a_sequence_set_back_overwrites_no_shard(tmp_path):
    root = filled(tmp_path / "cache")
    base = sqlite3.connect(root / "index.sqlite")
    with base:
        base.execute("update sqlite_sequence set seq = 0")
    base.close()
    with writer(root, shard_bytes=2 * slot_bytes()) as store:
        put(store, [7])
        assert all(same(store, number) for number in (0, 1, 2, 3, 7))


def test_a_quarantine_that_leads_elsewhere_is_not_used(tmp_path, outside):
    root = filled(tmp_path / "cache")
    (root / "quarantine").symlink_to(tmp_path)
    os.truncate(root / "shard-00002.h5", 100)
    with FeatureWriter.reopen(root) as store:
        with pytest.raises(CacheError, match=r"quarantine is a link"):
            store.drop_damaged()
        assert same(store, 0)
    assert not (tmp_path / "shard-00002.h5").exists()
