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

from clasp_calib.artifacts.files import read_artifact
from clasp_calib.cache.encode import image_key
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError
from clasp_calib.search.journal import JOURNAL

PICTURES = 300
REPORT = '"sample":'
"""What a line of the journal holds if it is a score."""


def killed(words, done, enough):
    """Run a command in a process of its own, kill it when ``done()`` has reached ``enough``, and return ``done()``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "clasp_calib.cli", *map(str, words)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        limit = time.monotonic() + 120
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


def test_search_goes_on_where_it_was_killed(finished, tmp_path_factory, command):
    runs = [copy_of(finished, tmp_path_factory.mktemp(name)) for name in ("killed", "undisturbed")]
    journals, commands = [], []
    for ready in runs:
        for name in ("study", "artifact"):
            shutil.rmtree(ready.run / name)
        journals.append(ready.run / "study" / JOURNAL)
        commands.append(["search", *ready.words, "--budget", "50%", "--first", "2"])

    def recorded():
        return journals[0].read_text().count(REPORT) if journals[0].exists() else 0

    before = killed(commands[0], recorded, 12)
    for words in commands:
        assert command(*words).code == 0
    scores = [journal.read_text().count(REPORT) for journal in journals]
    assert 12 <= before < scores[0] == scores[1], "something was measured twice"
    ids = [read_artifact(ready.run / "artifact").manifest.id for ready in runs]
    assert ids[0] == ids[1]
