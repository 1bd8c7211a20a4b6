"""`bench-serve` on vLLM itself and the embedded model."""

import json

import pytest
from served_artifacts import served_artifact

import clasp_calib as cc
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.cli import run
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.router_labeling.taxonomy import load_taxonomy

pytestmark = pytest.mark.vllm

FLAGS = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "640", "--max-num-seqs", "8", "--block-size", "32"]


def test_pruning_saves_its_tokens_of_every_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {label: {"rho": 0.5} for label in load_taxonomy().classes}
    artifact = served_artifact(cc.load_model("reference")[0], ["64"], settings, PROMPT)
    write_artifact(artifact, tmp_path / "artifact")
    samples = write_benchmark(tmp_path / "benchmark", {"calibration": 1, "selection": 1, "test": 2}, "jsonl")
    places = ["--artifact", str(tmp_path / "artifact"), "--samples", str(samples), "--out", str(tmp_path / "out")]
    words = ["bench-serve", *places, "--model", str(MODEL), "--run", str(tmp_path / "run"), "--json"]
    assert run([*words, "--limit", "10", "--concurrency", "1,4", "--wait", "240", "--", *FLAGS]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["questions"], report["budget"], report["vllm"][:5]) == (10, "64", "0.32.")
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    told = {(row["server"], row["concurrency"], row["id"]): row for row in rows}
    assert len(told) == 40
    for (server, count, name), row in told.items():
        assert 0 < row["first"] <= row["last"]
        saved = row["prompt_tokens"] - told["pruned", count, name]["prompt_tokens"]
        assert saved == (576 - 64 if server == "plain" else 0)
        assert row["cached_tokens"] < row["prompt_tokens"]
        # A busier server answers the same.
        assert row["text"] == told[server, 1, name]["text"]
    for figures in report["runs"]:
        assert figures["plain"]["prompt_tokens"] - figures["pruned"]["prompt_tokens"] == pytest.approx(576 - 64)
        # Ten questions about two pictures share most of theirs, unless pruning tells their classes apart.
        assert figures["plain"]["cached_tokens"] > figures["pruned"]["cached_tokens"]
        # It sees the picture and reads the question: guessing is right in far fewer.
        assert figures["accuracy"]["plain"]["mean"] >= 0.5
    assert "CLASP" not in (tmp_path / "out" / "plain.log").read_text()
