"""Commands that draw, where there is no matplotlib: said before the work, and the work is done."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture(autouse=True)
def _no_matplotlib(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.slow
def test_a_search_its_evaluation_and_a_comparison_go_on(copied, command):
    for picture in (copied.run / "report").glob("*.png"):
        picture.unlink()
    space = ["--space", copied.run / "small.yaml", "--budget", "6"]
    for words in (
        ["search", *copied.words, *space],
        ["evaluate", *copied.words, "--timed", "0", "--per-class", "1"],
        ["compare", *copied.words, "--methods", "fastv", "--budget", "6", "--per-class", "1", "--timed", "0"],
    ):
        ended = command(*words)
        assert ended.code == 0, ended.err
        assert "going on without plots, which need matplotlib: pip install 'clasp-calib[plots]'" in ended.err
        assert "picture" not in ended.out
        assert "plot" not in ended.out
    events = command("search", *copied.words, *space, "--json").out.splitlines()
    assert json.loads(events[-1])["picture"] is None
    assert not list((copied.run / "report").glob("*.png"))
    assert (copied.run / "report" / "comparison-test.md").is_file()


def test_a_router_is_trained(command, tmp_path):
    words = (("counting", "how many of the"), ("attribute", "what colour has the"))
    things = ("dog", "cat", "car", "boat", "tree", "lamp", "shoe", "bird")
    rows = [{"question": f"{said} {thing}?", "class": label} for label, said in words for thing in things]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    ended = command("train-router", tmp_path / "labels.parquet", "--run", tmp_path)
    assert ended.code == 0, ended.err
    assert "going on without plots" in ended.err
    assert "trade-off" not in ended.out
    assert not list(tmp_path.rglob("*.png"))
