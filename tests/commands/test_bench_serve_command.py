"""`bench-serve` on a program that serves as vLLM does, and misbehaves as told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_vllm import fake_vllm, logged
from PIL import Image
from served_artifacts import served_artifact
from speaking_models import speaking_llava_directory

import clasp_calib as cc
from clasp_calib.api.benching import _chosen
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.runtime.loading import load_model

COLOURS = ("red", "blue", "green", "white")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    """A model, an artifact for it, samples, and a vllm that is none."""
    root = tmp_path_factory.mktemp("bench")
    model, _ = load_model(str(speaking_llava_directory(root / "model")))
    prompt = "USER: <image>\n{question}\nIn a word. ASSISTANT:"
    write_artifact(served_artifact(model, ["4", "8"], {"object": {}, "default": {}}, prompt), root / "artifact")
    rows = []
    for number, colour in enumerate(COLOURS):
        for split, side in (("test", 24), ("calibration", 32)):
            picture = f"{split}-{colour}.png"
            Image.new("RGB", (side, side), colour).save(root / picture)
            row = {"id": f"{split}-{number}", "image": picture, "question": f"Which colour, {number}?"}
            rows.append(row | {"answers": ["red"] if number else ["blue"], "split": split})
    (root / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fake_vllm(root)
    return root


@pytest.fixture(autouse=True)
def soon_dead(monkeypatch):
    monkeypatch.setattr("clasp_calib.serving.load_test.DYING", 0.3)


def words(bench, out, *flags):
    given = {"artifact": "artifact", "model": "model", "samples": "samples.jsonl", "vllm": "vllm"}
    named = [word for name, place in given.items() for word in (f"--{name}", bench / place)]
    return ["bench-serve", *named, "--budget", "4", "--out", out, "--concurrency", "1,3", "--run", out / "run", *flags]


def questions(log):
    """The texts of the questions that a server was asked, in order."""
    return [body["messages"][0]["content"][1]["text"] for body in logged(log, "chat")]


def test_both_servers_are_asked_the_same_and_stand_side_by_side(bench, command, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASP_BUDGET", "8")
    monkeypatch.setenv("CLASP_CLASS", "object")
    ended = command(*words(bench, tmp_path, "--json"))
    assert ended.code == 0, ended.err
    logs = [tmp_path / f"{name}.log" for name in ("plain", "pruned")]
    told = [logged(log, "environment") for log in logs]
    assert told == [[{}], [{"CLASP_ARTIFACT": str(bench / "artifact"), "CLASP_BUDGET": "4"}]]
    asked = [questions(log) for log in logs]
    assert sorted(asked[0][:3]) == sorted(asked[1][:3])
    # Behind the warm-up, each question once a run, in the same order where one is asked at a time.
    assert asked[0][3:7] == asked[1][3:7]
    for start in (3, 7):
        assert sorted(asked[0][start : start + 4]) == [f"Which colour, {n}?\nIn a word." for n in range(4)]
        assert sorted(asked[1][start : start + 4]) == sorted(asked[0][start : start + 4])
    assert len(asked[0]) == len(asked[1]) == 11
    for log in logs:
        assert logged(log, "in flight")[-1] == 3
        assert len(logged(log, "/reset_mm_cache")) == 2
        # The first time it said that it could not.
        assert len(logged(log, "/reset_prefix_cache")) == 3
    report = ended.json
    assert (report["questions"], report["budget"], report["vllm"]) == (4, "4", "0.32.0")
    for run, count in zip(report["runs"], (1, 3), strict=True):
        assert run["concurrency"] == count
        assert (run["plain"]["prompt_tokens"], run["pruned"]["prompt_tokens"]) == (600, 100)
        assert (run["plain"]["cached_tokens"], run["pruned"]["cached_tokens"]) == (150, 25)
        assert (run["plain"]["kv_tokens"], run["pruned"]["kv_tokens"]) == (601, 101)
        assert run["plain"]["ttft_median"] > 0.06 > run["pruned"]["ttft_median"] > 0.01
        assert run["plain"]["tpot_median"] > run["pruned"]["tpot_median"] > 0
        assert run["pruned"]["requests_per_second"] > run["plain"]["requests_per_second"]
        assert (run["accuracy"]["plain"]["mean"], run["accuracy"]["pruned"]["mean"]) == (0.75, 0.25)
        assert run["accuracy"]["difference"]["mean"] == -0.5
    assert json.loads((tmp_path / "bench.json").read_text()) == report
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 16
    assert {(row["server"], row["text"]) for row in answers} == {("plain", "red"), ("pruned", "blue")}
    assert sum(row["score"] for row in answers if row["server"] == "plain") == 6


def test_a_table_for_people_and_python_in_one_call(bench, command, tmp_path):
    ended = command(*words(bench, tmp_path / "shell", "--limit", "2"))
    assert ended.code == 0, ended.err
    for told in ("budget 4, 2 questions, 3 at a time", "TTFT p95, ms", "0.17x", str(tmp_path / "shell")):
        assert told in ended.out
    assert "plain, 3 at a time:" in ended.err
    options = cc.BenchOptions(concurrency=[2], limit=2, split="calibration")
    report = cc.bench_serve(
        cc.Artifact.load(bench / "artifact"),
        bench / "samples.jsonl",
        bench / "model",
        8,
        options=options,
        vllm=bench / "vllm",
    )
    assert report.out.is_dir()
    tokens = next(row for row in report.table() if row["figure"] == "prompt tokens a request")
    assert tokens == {
        "concurrency": 2,
        "figure": "prompt tokens a request",
        "plain": "600",
        "pruned": "100",
        "ratio": "0.17x",
    }
    assert "| prompt tokens a request, 2 at a time | 600 | 100 | 0.17x |" in report.to_markdown()
    assert "<td" in report._repr_html_()
    assert logged(report.out / "pruned.log", "environment")[0]["CLASP_BUDGET"] == "8"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--end"], "vllm serve ended with 3 before it was ready; its log {out}/plain.log says why, and ends with: "
                    "ValueError: no room for the model"),
        (["--die-at", "5"], "ended with 4 while it was asked; its log {out}/plain.log says why, and ends with: out of"),
        (["--refuse"], "refuses a question with 400"),
        (["--break-off"], "broke off an answer"),
        (["--fail"], "fails on a question: {{\"message\": \"the engine is dead\"}}"),
        (["--no-plugin"], "it does not prune. Install clasp-calib in vLLM's environment"),
        (["--port", "8000"], "--port is not for a server that is only measured"),
    ],
)  # fmt: skip
def test_what_servers_cannot_do_is_said(bench, command, tmp_path, flags, complaint):
    ended = command(*words(bench, tmp_path, "--concurrency", "1"), "--", *flags)
    assert ended.code == 2
    assert complaint.format(out=tmp_path) in ended.err.replace("\n", " ")
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--vllm", "{out}/absent"], "install vLLM"),
        (["--out", "{taken}"], "cannot write the log {taken}/plain.log"),
        (["--concurrency", "1,many"], "--concurrency '1,many' is not numbers of requests"),
        (["--concurrency", "0"], "concurrency is 0; expected at least 1"),
        (["--split", "selection"], "no sample is in the split 'selection'; give one of calibration, test, or all"),
        (["--budget", "5"], "no budget '5'"),
        (["--model", "{out}"], "cannot read the configuration of the model"),
        (["--wait", "1", "--", "--sick"], "did not become healthy"),
    ],
)
def test_what_cannot_be_measured_is_refused(bench, command, tmp_path, given, complaint):
    places = {"out": tmp_path, "taken": tmp_path / "taken"}
    (tmp_path / "taken" / "plain.log").mkdir(parents=True)
    ended = command(*words(bench, tmp_path), *(word.format(**places) for word in given))
    assert ended.code == 2
    assert complaint.format(**places) in ended.err
    assert "Traceback" not in ended.err


def test_an_interrupt_ends_the_server(bench, tmp_path):
    command = [sys.executable, "-m", "clasp_calib.cli", *map(str, words(bench, tmp_path)), "--", "--hang"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log, end = tmp_path / "plain.log", time.monotonic() + 60
    while not (log.exists() and logged(log, "chat")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    # Nobody of the session is left.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_table_without_splits_is_divided_as_everywhere(bench, tmp_path):
    rows = [json.loads(line) for line in (bench / "samples.jsonl").read_text().splitlines()]
    plain = [{**row, "image": str(bench / row["image"])} for row in rows]
    for row in plain:
        del row["split"]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
    samples = cc.load_samples(tmp_path / "samples.jsonl")
    asked = {name: {s.id for s in _chosen(samples, cc.BenchOptions(split=name))} for name in ("test", "calibration")}
    assert asked["test"].isdisjoint(asked["calibration"])
    assert {s.id for s in _chosen(samples, cc.BenchOptions(split="all"))} == {row["id"] for row in rows}
