"""Kills, two writers, and readers in forked, spawned and threaded workers."""

import multiprocessing
import os
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import store_support
import torch
from store_support import key_of, put, same, writer
from torch.utils.data import DataLoader, Dataset

from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError


@contextmanager
def writing(root, first):
    """A process that writes from picture ``first`` on until it is killed, and what it tells."""
    reading, told = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=store_support.write_forever, args=(root, first, told))
    process.start()
    os.close(told)
    try:
        with open(reading) as lines:
            yield process, lines
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_killed_at_random_loses_nothing_that_it_acknowledged(tmp_path, seed):
    first = 0
    for _ in range(2):
        with writing(tmp_path, first) as (process, lines):
            started = lines.readline()
            time.sleep(random.Random(seed).uniform(0.0, 0.15))
            process.kill()
            acknowledged = int((started + lines.read()).split()[-1])
        with FeatureStore.open(tmp_path) as store:
            assert all(same(store, number) for number in range(acknowledged))
        first = acknowledged
    with writer(tmp_path, shape=(64, 128)) as store:
        put(store, range(first, first + 9), shape=(64, 128))
        assert list(store.verify()) == []
        assert store.missing(map(key_of, range(first + 9))) == []


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "least"), [("direct", 40), ("portable", 20)])
def test_a_writer_killed_at_every_step_loses_nothing(tmp_path, layout, least):
    assert store_support.sweep(tmp_path, 5, layout) > least


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path):
    with writer(tmp_path) as store:
        put(store, [1])
        with pytest.raises(CacheError, match=rf"being written by process {os.getpid()} on .*one writer"):
            writer(tmp_path)
        with FeatureStore.open(tmp_path) as reader:
            assert same(reader, 1)
            put(store, [2])
            assert same(reader, 2)
    writer(tmp_path).close()


def test_the_lock_dies_with_its_process(tmp_path):
    with writing(tmp_path, 0) as (process, lines):
        lines.readline()
        with pytest.raises(CacheError, match=f"process {process.pid} "):
            writer(tmp_path, shape=(64, 128))
        process.kill()
    writer(tmp_path, shape=(64, 128)).close()


def read_in_worker(store: FeatureStore, number: int) -> bool:
    return same(store, number) and store.opened.process == os.getpid()


@pytest.mark.parametrize(
    ("method", "workers", "layout"),
    [("fork", 2, "direct"), pytest.param("spawn", 1, "portable", marks=pytest.mark.slow)],
)
def test_readers_work_in_worker_processes(tmp_path, method, workers, layout):
    with writer(tmp_path, shard_bytes=2 * store_support.slot_bytes(), layout=layout) as store:
        put(store, range(8))
    reader = FeatureStore.open(tmp_path)
    assert same(reader, 0)  # so that a forked worker inherits open files
    with multiprocessing.get_context(method).Pool(workers) as pool:
        assert all(pool.starmap(read_in_worker, [(reader, number) for number in range(8)]))
    assert same(reader, 7)


class Pictures(Dataset):
    """What a training loop would hand to a DataLoader."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 8

    def __getitem__(self, number):
        return self.store.read(key_of(number), store_support.LAYERS).view(torch.int16)


@pytest.mark.parametrize(
    ("method", "workers", "layout"),
    [("fork", 2, "portable"), pytest.param("spawn", 1, "direct", marks=pytest.mark.slow)],
)
def test_a_dataloader_shares_the_store_among_its_workers(tmp_path, method, workers, layout):
    with writer(tmp_path, shard_bytes=2 * store_support.slot_bytes(), layout=layout) as store:
        put(store, range(8))
    reader = FeatureStore.open(tmp_path)
    assert same(reader, 0)
    loader = DataLoader(Pictures(reader), batch_size=3, num_workers=workers, multiprocessing_context=method)
    got = torch.cat(list(loader)).numpy()
    expected = [store_support.features(number).view("int16") for number in range(8)]
    assert (got == expected).all()


def test_an_inherited_reader_opens_anew_in_a_forked_child(tmp_path):
    with writer(tmp_path) as store:
        put(store, range(3))
        reader = FeatureStore.open(tmp_path)
        assert same(reader, 0)
        child = os.fork()
        if child == 0:
            try:
                fine = read_in_worker(reader, 2)
                with pytest.raises(CacheError, match="opened for writing by another process"):
                    put(store, [7])
                store.close()
                os._exit(0 if fine else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        put(store, [3])
        assert same(reader, 3)


def test_a_writer_is_not_sent_to_another_process(tmp_path):
    with writer(tmp_path) as store, pytest.raises(CacheError, match="cannot move to another process"):
        pickle.dumps(store)
    assert not hasattr(FeatureStore.open(tmp_path), "put")
    with pytest.raises(CacheError, match="not open for writing"):
        put(store, [1])


@pytest.mark.parametrize("layout", ["direct", "portable"])
def test_threads_share_a_reader(tmp_path, layout):
    with writer(tmp_path, shard_bytes=store_support.slot_bytes(), layout=layout) as store:
        put(store, range(20))
    reader = FeatureStore.open(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: same(reader, number % 20), range(400)))
