"""Commands that are killed in the middle: the same command goes on, and ends as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from ready_runs import copy_of, well
from speaking_models import write_picture

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError
from clasp_calib.search.score_journal import JOURNAL

PICTURES = 100


def killed(words, done, enough):
    """Run a command in a process of its own, kill it when ``done()`` has reached ``enough``, and return ``done()``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "clasp_calib.cli", *map(str, words)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        limit = time.monotonic() + 600
        while child.poll() is None and time.monotonic() < limit and done() < enough:
            time.sleep(0.002)
        child.kill()
        out, err = child.communicate()
    assert child.returncode == -signal.SIGKILL, f"it ended before it was killed: {out}{err}"
    return done()


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Many pictures, so that a process can be killed between two of them."""
    folder = tmp_path_factory.mktemp("album")
    rows = [{"image": f"{n}.png", "question": "What is this?"} for n in range(PICTURES)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "samples.jsonl", [write_picture(folder / row["image"], n, 8) for n, row in enumerate(rows)]


def test_cache_features_goes_on_where_it_was_killed(begun, album, tmp_path, command):
    samples, pictures = album
    keys = [image_key(picture) for picture in pictures]
    words = ["cache-features", "--run", tmp_path, "--model", begun.model, "--samples", samples, "--batch-size", "1"]

    def cached():
        try:
            with FeatureStore.open(tmp_path / "cache") as store:
                return PICTURES - len(store.missing(keys, (1, 2, 3)))
        except CacheError:
            return 0

    before = killed(words, cached, 3)
    assert 3 <= before < PICTURES
    result = command(*words, "--json").json
    assert (result["skipped"], result["encoded"]) == (before, PICTURES - before)
    well([*map(str, words), "--out", str(tmp_path / "undisturbed")])
    with FeatureStore.open(tmp_path / "cache") as store, FeatureStore.open(tmp_path / "undisturbed") as other:
        assert store.layers == other.layers == (1, 2, 3)
        assert list(store.verify()) == []
        for key in keys:
            assert (store.read(key, store.layers) == other.read(key, store.layers)).all()


KILL = """
import os, signal, sys, time
from pathlib import Path
import clasp_calib.report.plots, clasp_calib.search.calibrate, matplotlib.figure, transformers
from clasp_calib.cli import run
from clasp_calib.runtime.loading import load_model

journal, kills, words = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
load_model(words[words.index("--model") + 1])  # Imports what the children would import each for itself.

def lines():
    return journal.read_bytes().count(b"\\n") if journal.exists() else 0

for number in range(kills):
    enough = lines() + 1 + number % 3
    child = os.fork()
    if not child:
        os._exit(run(words))
    while lines() < enough:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it was killed"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""


def scores_of(journal):
    """(sample, candidate) of every score. Workers end in any order, so this has an order of its own."""
    rows = [json.loads(line.split(" ", 1)[1]) for line in journal.read_text().splitlines()]
    return sorted((r["sample"], name) for r in rows if "sample" in r for name in r["candidates"])


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(finished, tmp_path_factory, command):
    runs = [copy_of(finished, tmp_path_factory.mktemp(name)) for name in ("killed", "undisturbed")]
    for ready in runs:
        for name in ("study", "artifact"):
            shutil.rmtree(ready.run / name)
    asked = ["--budget", "50%", "--spend", "100%"]
    killed_run, undisturbed = (["search", *r.words, "--space", str(r.run / "small.yaml"), *asked] for r in runs)
    journals = [ready.run / "study" / JOURNAL for ready in runs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # Threads do not survive a fork.
    words = [sys.executable, "-c", KILL, str(journals[0]), "4", *killed_run]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    before = len(scores_of(journals[0]))
    assert command(*killed_run).code == command(*undisturbed).code == 0
    scores, expected = map(scores_of, journals)
    assert 0 < before < len(scores)
    assert scores == expected
    ended, undisturbed = (read_artifact(ready.run / "artifact") for ready in runs)
    assert ended.manifest.id == undisturbed.manifest.id
    assert len(scores) == len(set(scores)), "something was measured twice"
    ids = [read_artifact(ready.run / "artifact").manifest.id for ready in runs]
    assert ids[0] == ids[1]
