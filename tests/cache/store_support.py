"""Deterministic features for the store's tests, and writers that are killed."""

import ctypes
import os
import signal
import sys
from pathlib import Path

import numpy as np

from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.form import Form
from clasp_calib.cache.precision import Stored, precision_of
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter

SHAPE = (6, 8)
LAYERS = (1, 3, 4)
ENCODER = "an encoder"


def features(number: int, layers=LAYERS, shape=SHAPE) -> np.ndarray:
    """The features of picture ``number``: any bits that are a function of picture and layer."""
    planes = [
        np.random.default_rng((number, layer)).integers(0, 2**16, size=shape, dtype=np.uint16) for layer in layers
    ]
    return np.stack(planes).view(np.float16)


def key_of(number: int) -> str:
    return f"{number:064x}"


def writer(root: Path, layers=LAYERS, shape=SHAPE, encoder=ENCODER, precision="float16", **options) -> FeatureWriter:
    form = Form(shape[1], precision_of(precision), shape[0])
    return FeatureWriter(root, encoder, layers, form, FeatureOptions(**{"shard_bytes": 2**16, **options}))


def put(store: FeatureWriter, numbers, layers=LAYERS, shape=SHAPE) -> int:
    batch = [Stored(features(number, layers, shape)) for number in numbers]
    return store.put([key_of(number) for number in numbers], batch)


def same(store: FeatureStore, number: int, layers=LAYERS) -> bool:
    got = store.read(key_of(number), layers).numpy()
    put_in = features(number, layers, (store.form.tokens, store.form.channels))
    return bool(np.array_equal(got.view(np.uint16), put_in.view(np.uint16)))


def slot_bytes(layers=LAYERS, shape=SHAPE) -> int:
    return len(layers) * shape[0] * shape[1] * 2


def flip_bit(root: Path, store: FeatureStore, number: int, layer: int) -> Path:
    """Damage one slab; gives its shard."""
    entry, position = store.opened.places(key_of(number))[layer]
    record = store.opened.index.record(entry.shard)
    at = store.opened.shard(entry.shard).extents(entry, position)[0][0]
    with (root / record.file).open("r+b") as file:
        file.seek(at + 10)
        byte = file.read(1)[0]
        file.seek(at + 10)
        file.write(bytes([byte ^ 1]))
    return root / record.file


def write_forever(root: Path, first: int, told: int) -> None:
    """Put batches of two and tell each to a file descriptor after it was acknowledged, until killed."""
    with writer(root, shape=(64, 128), shard_bytes=5 * slot_bytes(shape=(64, 128))) as store:
        for number in range(first, 10**6, 2):
            put(store, (number, number + 1), shape=(64, 128))
            os.write(told, f"{number + 2}\n".encode())


def sweep(root: Path, pictures: int, layout: str, die_at=None) -> int:
    """Kill a writer at every call that changes the disk, and check the store after each; gives the calls.

    A kill comes before the n-th call or, for data, in the middle of it. Calls inside SQLite's own commit are
    SQLite's to survive; here its statements are the steps.
    """
    points = 0
    while True:
        points += 1
        store_root = root / str(points)
        acknowledged = root / f"{points}.acknowledged"
        child = os.fork()
        if child == 0:
            (die_at or _die_at)(points)
            _write_in_batches(store_root, pictures, acknowledged, layout)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        done = int(acknowledged.read_text() or 0) if acknowledged.exists() else 0
        try:
            if done:
                with FeatureStore.open(store_root) as store:
                    assert all(same(store, number) for number in range(done)), "an acknowledged picture is lost"
            with writer(store_root, shard_bytes=3 * slot_bytes(), layout=layout) as store:
                held = pictures - len(store.missing(map(key_of, range(pictures))))
                assert held >= done, "the index lost an acknowledged picture"
                assert list(store.verify()) == [], "a row was committed before its bytes"
                for number in range(pictures):
                    put(store, [number])
                assert all(same(store, number) for number in range(pictures)), "the resumed store is wrong"
            names = {path.name for path in store_root.glob("shard-*")}
            if layout == "direct":
                assert len(names) == -(-pictures // 3), f"space was wasted: {names}"
            assert not any(name.endswith(".tmp") for name in names)
        except Exception as error:
            raise AssertionError(f"killed at call {points} after {done} pictures: {error}") from error
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
    return points - 1


def sweep_system_calls(root: Path, pictures: int, layout: str) -> None:
    """`sweep` by the preloaded killer: every write call of whatever library, before it and in its middle."""
    killer = ctypes.CDLL(None)
    for name, torn in (("before", 0), ("torn", 1)):
        (root / name).mkdir()
        print(sweep(root / name, pictures, layout, lambda point, torn=torn: killer.arm(ctypes.c_long(point), torn)))


def _write_in_batches(root: Path, pictures: int, acknowledged: Path, layout: str) -> None:
    # No `close` on purpose: a kill does not close either.
    store = writer(root, shard_bytes=3 * slot_bytes(), layout=layout)
    for number in range(0, pictures, 2):
        put(store, range(number, min(number + 2, pictures)))
        acknowledged.write_text(str(min(number + 2, pictures)))


def _die_at(point: int) -> None:
    """Patch what this process uses to change the disk, so that it is killed at the n-th use."""
    import sqlite3

    calls = 0
    write = os.pwrite

    def step(torn=None) -> None:
        nonlocal calls
        calls += 1
        if calls == point:
            if torn is not None:
                torn()
            os.kill(os.getpid(), signal.SIGKILL)

    def pwrite(descriptor, buffer, offset):
        step(lambda: write(descriptor, bytes(buffer)[: len(buffer) // 2], offset))
        return write(descriptor, buffer, offset)

    def counted(function):
        def call(*arguments, **named):
            step()
            return function(*arguments, **named)

        return call

    class Connection(sqlite3.Connection):
        def execute(self, statement, *arguments):
            if not statement.startswith("select"):
                step()
            return super().execute(statement, *arguments)

        def executemany(self, statement, *arguments):
            step()
            return super().executemany(statement, *arguments)

        def __exit__(self, *arguments):
            step()
            return super().__exit__(*arguments)

    connect = sqlite3.connect
    sqlite3.connect = lambda *arguments, **named: connect(*arguments, factory=Connection, **named)
    os.pwrite = pwrite
    for name in ("open", "replace", "fsync", "posix_fallocate", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    sweep_system_calls(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
