"""One sample that fails in a library ends a command in a line, keeps what was done, and its traceback in a file."""

import json
import shutil

import pytest
from ready_runs import copy_of

from clasp_calib.cache import recipe
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring import prompting
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.search.score_journal import JOURNAL


@pytest.fixture
def failing(monkeypatch):
    """Makes a method fail at one of its calls and all later ones; ``undo`` of what it gives mends it."""

    def call(owner, name, times, error):
        whole, left = getattr(owner, name), [times]

        def method(*words, **options):
            left[0] -= 1
            if left[0] < 0:
                raise error
            return whole(*words, **options)

        monkeypatch.setattr(owner, name, method)
        return monkeypatch

    return call


def told(ended, run, *words):
    """Code 2, one line with words, and a traceback where the line says."""
    assert ended.code == 2, ended.err
    line = ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    for word in words:
        assert word in line
    assert line.endswith(f"the traceback is in {run / 'errors.log'}")
    kept = (run / "errors.log").read_text()
    assert "Traceback (most recent call last)" in kept
    return kept


def test_a_search_names_the_sample_and_goes_on_later(finished, tmp_path, command, failing):
    ready = copy_of(finished, tmp_path)
    for name in ("study", "artifact"):
        shutil.rmtree(ready.run / name)
    words = ["search", *ready.words, "--budget", "50%", "--spend", "100%"]
    mended = failing(Pruning, "applied", 24, RuntimeError("expected scalar type Half but found Float"))
    kept = told(command(*words), ready.run, "scoring the sample '", "expected scalar type Half", "same command again")
    assert "in method" in kept
    before = (ready.run / "study" / JOURNAL).read_bytes()
    assert before.count(b'"score"') >= 3
    mended.undo()
    assert command(*words).code == 0
    assert (ready.run / "study" / JOURNAL).read_bytes().startswith(before)


@pytest.mark.parametrize("words", [["evaluate"], ["compare", "--methods", "fastv", "--budget", "50%"]])
@pytest.mark.parametrize("times", [0, 5, 17])
def test_studies_name_the_sample(copied, command, failing, words, times):
    failing(Pruning, "applied", times, MemoryError())
    failing(prompting, "model_inputs", times, MemoryError())
    told(command(*words, "--workers", "1", *copied.words), copied.run, "the sample '", "MemoryError", "--dtype")


def test_caching_names_the_pictures_and_goes_on_later(begun, tmp_path, command, failing):
    words = ["cache-features", "--run", tmp_path, "--model", begun.model, "--samples", begun.samples, "--batch", "2"]
    mended = failing(recipe, "states_of", 2, RuntimeError("CUDA out of memory"))
    told(command(*words), tmp_path, "encoding ", ".png", "--batch", "same command again")
    with FeatureStore.open(tmp_path / "cache") as store:
        assert len(list(store.pictures())) == 4
    mended.undo()
    assert command(*words, "--json").json["skipped"] == 4


def test_a_mistake_of_ours_is_one_line_and_a_traceback_in_the_run(command, monkeypatch, copied):
    def fail(*_):
        raise ZeroDivisionError("no\nrows; Authorization: Bearer abcdefgh12345678")

    monkeypatch.setenv("HF_TOKEN", "a token of mine")
    monkeypatch.setattr("clasp_calib.artifacts.artifact.read_artifact", fail)
    ended = command("artifact", "show", "--run", copied.run)
    assert (ended.code, ended.out, ended.err.count("\n")) == (70, "", 1)
    assert "error: ZeroDivisionError: no rows; Authorization: Bearer [hidden]; this is a mistake of" in ended.err
    kept = (copied.run / "errors.log").read_text()
    assert "in fail" in kept
    assert "abcdefgh" not in kept


def test_without_a_run_the_traceback_is_in_a_file_of_its_own(command, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise MemoryError("a token of mine")

    monkeypatch.setenv("HF_TOKEN", "a token of mine")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("clasp_calib.common.sample_sources.load_samples", fail)
    ended = command("label", "samples.jsonl", "--run", tmp_path / "not yet")
    assert ended.code == 2
    (kept,) = tmp_path.glob("clasp-calib-*.log")
    assert "--dtype (bfloat16), a smaller --budget" in ended.err
    assert ended.err.endswith(f"the traceback is in {kept}\n")
    assert "MemoryError: [hidden]" in kept.read_text()


def test_a_place_for_the_traceback_is_not_needed(command, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    monkeypatch.setattr("clasp_calib.common.sample_sources.load_samples", lambda *_, **__: 1 / 0)
    ended = command("label", "samples.jsonl", "--run", tmp_path / "not yet")
    assert ended.code == 70
    assert "its traceback could not be kept" in ended.err


def test_a_name_that_is_not_unicode_is_told(command, finished, tmp_path):
    (tmp_path / "s.jsonl").write_text(json.dumps({"question": "Why?"}))
    ended = command("label", tmp_path / "s.jsonl", "--run", tmp_path / "r\udcff")
    assert ended.code == 2
    assert "r\\udcff" in ended.err
    assert "is not Unicode" in ended.err
