"""Decoding ahead and writing behind: order, back-pressure, and what happens when something dies."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stub_preparer import Stub, prepared
from transformers import AutoModelForImageTextToText, AutoProcessor

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.index import Index
from clasp_calib.cache.pipeline import BackgroundWriter, prepared_ahead, workers_for
from clasp_calib.cache.prepare import Broken
from clasp_calib.cache.states import in_batches
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError
from clasp_calib.common.samples import Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
from speaking_models import write_picture
from tiny_models import tiny_llava_directory

FILES = [Path(f"{number}") for number in range(40)]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_come_in_their_order(workers):
    got = list(prepared_ahead(Stub(), FILES, workers, 6))
    sizes = [
        7 * (number // 7) + 6 if isinstance(one, Broken) else one.pixels.shape[1] for number, one in enumerate(got)
    ]
    assert sizes == list(range(40))


def test_no_more_files_are_prepared_than_asked_for():
    begun = []

    def prepare(path):
        begun.append(path)
        return prepared()

    for number, _ in enumerate(prepared_ahead(prepare, FILES, 0, 5), start=1):
        assert len(begun) <= number + 5


def test_a_worker_that_is_killed_is_an_error_and_not_a_wait():
    with pytest.raises(CacheError, match=r"one of the 2 processes .* died: killed, .*--workers|fewer workers"):
        list(prepared_ahead(Stub(deadly="9"), FILES, 2, 6))


def test_few_pictures_are_worth_no_process():
    assert workers_for(100) == 0
    assert workers_for(10_000) == len(os.sched_getaffinity(0))


def test_only_neighbours_of_one_shape_go_together():
    shapes = [(1,), (1,), (1,), (2,), (1,), (1,)]
    pictures = [(number, prepared(shape)) for number, shape in enumerate(shapes)] + [(6, prepared((1,), "video"))]
    assert [[key for key, _ in batch] for batch in in_batches(pictures, 2)] == [[0, 1], [2], [3], [4, 5], [6]]
    assert list(in_batches([], 2)) == []


def test_the_writer_holds_back_who_is_too_fast():
    free, written = threading.Event(), []

    def write(item):
        free.wait(10)
        written.append(item)

    with BackgroundWriter(write, 2) as writer:
        handed = []
        hand = threading.Thread(target=lambda: [handed.append(writer.put(number)) for number in range(9)])
        hand.start()
        time.sleep(0.2)
        assert len(handed) <= 3, "one in hand and two that wait"
        free.set()
        hand.join()
    assert written == list(range(9))
    assert writer.waited > 0.1


def test_the_writers_error_is_raised_where_items_come_from_and_nothing_follows_it():
    written = []

    def write(item):
        if item == 3:
            raise CacheError("the disk is full")
        written.append(item)

    def hand_over():
        with BackgroundWriter(write, 1) as writer:
            for number in range(50):
                writer.put(number)
                time.sleep(0.001)

    with pytest.raises(CacheError, match="full"):
        hand_over()
    assert written == [0, 1, 2]


def test_the_writers_last_error_is_not_lost_and_others_go_first():
    def write(item):
        raise CacheError(item)

    with pytest.raises(CacheError, match="last"), BackgroundWriter(write, 5) as writer:
        writer.put("last")
    with pytest.raises(KeyError), BackgroundWriter(write, 5) as writer:
        raise KeyError


INTERRUPTED = """
import itertools, signal
from clasp_calib.cache.pipeline import BackgroundWriter

def interrupt(*_):
    raise KeyboardInterrupt

def hand_over(written):
    with BackgroundWriter(written.append, 2) as writer:
        for number in itertools.count():
            writer.put(number)

signal.signal(signal.SIGALRM, interrupt)
for number in range(60):
    written = []
    signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0001 * number)
    try:
        hand_over(written)
    except KeyboardInterrupt:
        assert written == list(range(len(written)))
"""


def test_an_interrupt_at_any_moment_does_not_leave_the_writer_asleep():
    """In a process of its own: an interrupt in the middle of coverage's tracer would leave coverage's lock taken."""
    words = [sys.executable, "-c", INTERRUPTED]
    ended = subprocess.run(words, check=False, timeout=120, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_llava_directory(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def bench(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return [Sample(str(number), "?", write_picture(folder / f"{number}.png", number)) for number in range(12)]


def checksums(root):
    index = Index(root)
    keys = index.keys()
    return {key: [(entry.tokens, entry.origin, entry.checksums) for entry in index.entries(key)] for key in keys}


def test_processes_and_threads_give_the_same_bits_and_account_for_the_time(bench, samples, tmp_path):
    found = []
    for workers in (0, 1):
        report = cache_features(
            *bench, samples, tmp_path / str(workers), FeatureOptions(layers=[1, 3], batch_size=5, workers=workers)
        )
        assert (report.encoded, report.workers) == (12, workers)
        times = report.times
        assert min(times.decode, times.preprocess, times.encode, times.write) > 0
        assert times.encode + times.wait_for_pictures + times.wait_for_cache < report.seconds
        assert 0 <= times.share_waited_for_cache <= 1
        found.append(checksums(tmp_path / str(workers)))
    assert found[0] == found[1]


def test_a_full_disk_stops_the_run_and_keeps_what_was_written(bench, samples, tmp_path, monkeypatch):
    put, batches = FeatureWriter.put, []

    def full(self, keys, *rest):
        batches.append(keys)
        if len(batches) == 3:
            raise CacheError("cannot write (No space left on device); make room")
        return put(self, keys, *rest)

    monkeypatch.setattr(FeatureWriter, "put", full)
    with pytest.raises(CacheError, match="No space left"):
        cache_features(*bench, samples, tmp_path, FeatureOptions(layers=[1], batch_size=2))
    assert len(batches) == 3
    monkeypatch.undo()
    with FeatureStore.open(tmp_path) as store:
        assert list(store.verify()) == []
        assert sorted(store.pictures()) == sorted(key for batch in batches[:2] for key in batch)
    report = cache_features(*bench, samples, tmp_path, FeatureOptions(layers=[1], batch_size=2))
    assert (report.skipped, report.encoded) == (4, 8)


@pytest.mark.slow
def test_workers_do_not_outlive_a_command_that_is_killed(checkpoint, tmp_path):
    rows = [f'{{"image": "{number}.png", "question": "?"}}\n' for number in range(1500)]
    for number in range(1500):
        write_picture(tmp_path / f"{number}.png", number, 8)
    (tmp_path / "samples.jsonl").write_text("".join(rows))
    words = [
        "cache-features",
        "--run",
        tmp_path / "run",
        "--model",
        checkpoint,
        "--samples",
        tmp_path / "samples.jsonl",
    ]
    command = [sys.executable, "-m", "clasp_calib.cli", *map(str, words), "--workers", "1", "--batch", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as main:
        limit = time.monotonic() + 120
        first = image_key(tmp_path / "0.png")
        while time.monotonic() < limit and main.poll() is None and not stored(tmp_path / "run" / "cache", first):
            time.sleep(0.05)
        workers = children(main.pid)
        main.kill()
        assert workers, main.communicate()[0]
    while any(worker.exists() for worker in workers) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not any(worker.exists() for worker in workers)


def children(process):
    """The directories of its children below /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(stat.parent)
    return found


def stored(root, key):
    try:
        with FeatureStore.open(root) as store:
            return not store.missing([key], [1])
    except CacheError:
        return False
