"""``cache-features`` killed at twenty random moments: it ends as if it had never been disturbed."""

import json
import multiprocessing
import random
import signal
import time

import pytest
import torch
from ready_runs import well
from speaking_models import write_picture

from clasp_calib.cache.index import Index
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cli import run
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError

PICTURES, KILLS, LAYERS = 240, 20, (1, 2, 3)
# After a kill, pictures go into other batches, which may be rounded otherwise: by a step of float16, and near zero by
# what float32 loses. The bits of `--batch 1` are compared in test_killed.py.
ROUNDING = {"rtol": 2**-10, "atol": 2**-14}


def in_silence(words):
    """What a child does: the whole command, its output dropped."""
    import os

    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    run(words)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Pictures of several sizes, and two that are none."""
    folder = tmp_path_factory.mktemp("album")
    rows = [{"image": f"{number}.png", "question": "What is this?"} for number in range(PICTURES)]
    for number in range(PICTURES):
        write_picture(folder / f"{number}.png", number, 8 + number % 5)
    for number in (17, 101):
        (folder / f"{number}.png").write_text(f"picture {number} is none")
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cached(root, keys):
    """The pictures of which all layers are there."""
    try:
        with FeatureStore.open(root) as store:
            return set(keys) - set(store.missing(keys, LAYERS))
    except CacheError:
        return set()


def content(root):
    """Key -> tokens and origin of each of its entries."""
    index = Index(root)
    return {key: [(entry.tokens, entry.origin) for entry in index.entries(key)] for key in index.keys()}  # noqa: SIM118


@pytest.mark.slow
def test_twenty_random_kills_leave_no_trace(begun, album, tmp_path, command):
    keys = [image_key(album / f"{number}.png") for number in range(PICTURES) if number not in (17, 101)]
    chance, context = random.Random(6), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clasp_calib.cache.encode", "transformers.models.auto.modeling_auto"])
    words = ["cache-features", "--run", tmp_path, "--model", begun.model, "--samples", album / "samples.jsonl"]
    words = [*map(str, words), "--batch", "3"]
    kills, roots = 0, [tmp_path / "0"]
    while kills < KILLS:
        if len(before := cached(roots[-1], keys)) == len(keys):
            roots.append(tmp_path / str(len(roots)))
            before = set()
        goal = len(before) + chance.randrange(30)
        child = context.Process(target=in_silence, args=([*words, "--out", str(roots[-1])],))
        child.start()
        while child.is_alive() and len(acknowledged := cached(roots[-1], keys)) < goal:
            time.sleep(0.002)
        time.sleep(chance.random() / 20)
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        assert before <= acknowledged <= cached(roots[-1], keys)
    well([*words, "--out", str(tmp_path / "undisturbed")])
    expected = content(tmp_path / "undisturbed")
    assert set(expected) == set(keys)
    for root in roots:
        before = len(cached(root, keys))
        result = command(*words, "--out", root, "--json").json
        assert (result["skipped"], result["encoded"]) == (before, len(keys) - before)
        assert content(root) == expected
        assert [odd["image"] for odd in result["odd"]] == [str(album / f"{number}.png") for number in (17, 101)]
        with FeatureStore.open(root) as store, FeatureStore.open(tmp_path / "undisturbed") as other:
            assert list(store.verify()) == []
            for key in keys:
                torch.testing.assert_close(store.read(key, LAYERS), other.read(key, LAYERS), **ROUNDING)
