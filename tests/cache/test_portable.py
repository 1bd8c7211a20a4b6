"""The portable layout: when it is chosen, what it looks like, and what its index survives."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import h5py
import pytest
from store_support import ENCODER, LAYERS, features, key_of, put, same, writer

from clasp_calib.cache import filesystem
from clasp_calib.cache.filesystem import filesystem_of
from clasp_calib.cache.index import Index
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:28 / /mnt rw shared:1 master:2 - tmpfs tmpfs rw
33 31 0:30 / /mnt/my\\040share rw - nfs4 host:/export rw,vers=4.2
34 22 0:31 / /home/me/far rw - fuse.sshfs host:/ rw
35 22 0:32 / /over rw - cifs //host/share rw
36 22 0:33 / /over rw - xfs /dev/vdb rw
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    monkeypatch.setattr(filesystem, "MOUNTS", table)
    return table


@pytest.mark.parametrize(
    ("path", "kind", "safe"),
    [
        ("/var/cache", "ext4", True),
        ("/mnt", "tmpfs", True),
        ("/mnt/my share/cache", "nfs4", False),
        ("/mnt/my shares", "tmpfs", True),
        ("/home/me/far", "fuse.sshfs", False),
        ("/over/it", "xfs", True),
    ],
)
def test_the_file_system_decides(mounts, path, kind, safe):
    assert filesystem_of(path) == kind
    assert filesystem.is_local(path) is safe


def test_a_system_that_does_not_tell_is_not_trusted(monkeypatch, tmp_path):
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "none")
    assert filesystem_of(tmp_path) == "unknown"
    assert not filesystem.is_local(tmp_path)


@pytest.fixture
def network(mounts, tmp_path):
    """A directory that seems to lie on a network file system."""
    root = tmp_path / "share"
    mounts.write_text(MOUNTS + f"40 22 0:40 / {root} rw - nfs4 host:/export rw\n")
    return root


def test_a_cache_on_a_network_is_portable_and_a_local_one_direct(network, tmp_path):
    for root, index in ((network, "index.jsonl"), (tmp_path / "local", "index.sqlite")):
        with writer(root) as store:
            put(store, [1, 2])
            assert same(store, 1)
        assert {path.name for path in root.iterdir()} == {index, "shard-00001.h5", "writer.lock"}
        with FeatureStore.open(root) as store:
            assert same(store, 2)
        with writer(root) as store:
            assert store.missing([key_of(1)]) == []


def test_another_layout_than_is_there_is_refused(tmp_path):
    for layout, other in (("direct", "portable"), ("portable", "direct")):
        writer(tmp_path / layout, layout=layout).close()
        with pytest.raises(CacheError, match=rf"is {layout}, asked for {other}; leave the mode out"):
            writer(tmp_path / layout, layout=other)


def test_a_direct_cache_on_a_network_is_read_and_not_written(network):
    local = filesystem.MOUNTS
    filesystem.MOUNTS = filesystem.Path("/proc/self/mountinfo")
    with writer(network, layout="direct") as store:
        put(store, [1])
    filesystem.MOUNTS = local
    assert same(FeatureStore.open(network), 1)
    with pytest.raises(CacheError, match=r"can be read but not written to on the file system nfs4"):
        writer(network)


def test_any_hdf5_tool_reads_a_shard(tmp_path):
    with writer(tmp_path, layout="portable") as store:
        put(store, [4, 5])
    with h5py.File(next(tmp_path.glob("*.h5")), "r") as file:
        assert file.attrs["encoder"] == ENCODER
        assert list(file["x"].attrs["layers"]) == list(LAYERS)
        assert file["x"].shape == (2, len(LAYERS), *features(5).shape[1:])
        assert file["x"][1].tobytes() == features(5).tobytes()


def test_a_reader_follows_what_a_writer_appends(tmp_path):
    with writer(tmp_path, layout="portable") as store:
        reader = FeatureStore.open(tmp_path)
        for number in range(4):
            assert reader.missing([key_of(number)], LAYERS)
            put(store, [number])
            assert same(reader, number)
        store.forget([key_of(2)])
        assert reader.missing(map(key_of, range(4)), LAYERS) == [key_of(2)]


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_torn_line_was_never_acknowledged(tmp_path, left):
    with writer(tmp_path, layout="portable") as store:
        put(store, [1])
        before = (tmp_path / "index.jsonl").stat().st_size
        put(store, [2])
    with (tmp_path / "index.jsonl").open("r+b") as file:
        size = len(file.read())
        file.truncate(before + left if left > 0 else size + left)
    with FeatureStore.open(tmp_path) as store:
        assert same(store, 1)
        assert store.missing([key_of(2)], LAYERS)
    with writer(tmp_path) as store:
        assert len(list(tmp_path.glob("*.h5"))) == 1, "a shard that nobody knows of was kept"
        put(store, [2])
    with FeatureStore.open(tmp_path) as store:
        assert same(store, 2)


def test_an_index_without_checksums_is_taken_up(tmp_path):
    """As versions before the first checksums wrote it."""
    with writer(tmp_path, layout="portable") as store:
        put(store, [1, 2])
    index = tmp_path / "index.jsonl"
    lines = [json.loads(line.split(b" ", 1)[1]) for line in index.read_bytes().splitlines()]
    index.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"entries": [')
    with FeatureStore.open(tmp_path) as store:
        assert same(store, 1)
        assert same(store, 2)
    with writer(tmp_path) as store:
        assert same(store, 2)
        put(store, [3])
        store.forget([key_of(1)])
    with FeatureStore.open(tmp_path) as store:
        assert sorted(store.pictures()) == sorted(map(key_of, (2, 3)))
        assert same(store, 3)
    assert [line.startswith(b"{") for line in index.read_bytes().splitlines()] == [True, True, False, False]


def test_a_damaged_index_is_named(tmp_path):
    with writer(tmp_path, layout="portable") as store:
        put(store, [1])
        put(store, [2])
    lines = (tmp_path / "index.jsonl").read_bytes().splitlines(keepends=True)
    for number, wrong in ((0, b"{}\n"), (1, b"not json\n"), (1, b'{"entries": [{"key": 1}]}\n')):
        damaged = [*lines[:number], wrong, *lines[number + 1 :]]
        (tmp_path / "index.jsonl").write_bytes(b"".join(damaged))
        with pytest.raises(CacheError, match=r"index\.jsonl is (damaged|empty)"):
            FeatureStore.open(tmp_path)
    (tmp_path / "index.jsonl").unlink()
    with pytest.raises(CacheError, match="no feature cache at"):
        FeatureStore.open(tmp_path)
    with pytest.raises(CacheError, match=r"2 shards but no index\.jsonl"):
        writer(tmp_path, layout="portable")


def test_a_full_disk_says_so_and_loses_nothing(tmp_path, monkeypatch):
    with writer(tmp_path, layout="portable") as store:
        put(store, [0, 1])
        for call in ("fsync", "pwrite", "replace"):

            def full(*_):
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(os, call, full)
            with pytest.raises(CacheError, match=r"No space left on device\); make room .* stays"):
                put(store, [2, 3])
            monkeypatch.undo()
            assert same(store, 0)
            assert store.missing(map(key_of, range(4))) == [key_of(2), key_of(3)]
        put(store, [2, 3])
        assert same(store, 3)
    with FeatureStore.open(tmp_path) as store:
        assert all(same(store, number) for number in range(4))


@pytest.fixture
def lockless(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_locks_a_second_writer_is_refused_all_the_same(tmp_path, lockless):
    with writer(tmp_path, layout="portable") as store:
        put(store, [1])
        with pytest.raises(CacheError, match=rf"by process {os.getpid()} on .*has ended, remove .*writer\.name"):
            writer(tmp_path)
    writer(tmp_path).close()
    assert not (tmp_path / "writer.name").exists()


def test_without_locks_a_killed_writer_is_not_waited_for_but_one_elsewhere_is(tmp_path, lockless):
    ended = subprocess.run(
        [sys.executable, "-c", "import os, socket; print(f'process {os.getpid()} on {socket.gethostname()}')"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "writer.name").write_text(ended)
    writer(tmp_path).close()
    (tmp_path / "writer.name").write_text("process 1 on another machine\n")
    with pytest.raises(CacheError, match="written by process 1 on another machine"):
        writer(tmp_path)


def test_the_journal_and_the_database_tell_the_same(tmp_path):
    """One index's history through the other kind: both end alike."""
    for layout in ("direct", "portable"):
        with writer(tmp_path / layout, layout=layout, shard_bytes=10**6) as store:
            put(store, [1, 2])
            put(store, [3])
            store.forget([key_of(2)])
        with FeatureStore.open(tmp_path / layout) as store:
            assert sorted(store.pictures()) == [key_of(1), key_of(3)]
    lines = [json.loads(line.split(" ", 1)[1]) for line in (tmp_path / "portable" / "index.jsonl").open()]
    assert [sorted(line) for line in lines] == [["meta"], ["entries", "shards"], ["entries", "shards"], ["forget"]]
    assert Index(tmp_path / "direct").meta().keys() == lines[0]["meta"].keys()
