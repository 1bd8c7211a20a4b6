"""``clasp-calib reproduce``: the list, plans, refusals, and a rehearsal that is killed and taken up."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from clasp_calib.recipes.registry import TABLES
from clasp_calib.recipes.reproduced import NEVER_RUN, WATERMARK

SMALL = ("--pictures", "2", "2")


def test_without_a_table_all_are_listed(command):
    ended = command("reproduce", "--json")
    assert [of["table"] for of in ended.json["tables"]] == list(TABLES)
    assert "Recipes of the paper's tables" in command("reproduce").out


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_a_plan(command, table):
    ended = command("reproduce", table, "--plan")
    assert ended.code == 0, ended.err
    assert NEVER_RUN in ended.out
    plan = command("reproduce", table, "--plan", "--json", "--samples", "mine.jsonl", "--run", "here").json
    assert plan["model"]["pinned"] is False
    lines = [shlex.join(step["command"]) for step in plan["steps"]]
    if lines:
        assert lines[0].startswith(
            "clasp-calib label mine.jsonl --run here --backend vllm --labeler-model Qwen/Qwen3-8B"
        )
        assert plan["gpu_hours"] > 1
        assert plan["disk_bytes"] > 1e11
    else:
        assert plan["not measured"][0].startswith("the whole table")


def test_command_lines_of_a_plan_are_taken_by_their_commands(command):
    """Options that a command does not have would be found after hours."""
    for table in TABLES:
        for step in command("reproduce", table, "--plan", "--json").json["steps"]:
            program, *words = step["command"]
            if program == "clasp-calib":
                ended = command(*words, "--help")
                assert ended.code == 0, (words, ended.err)
                told = ended.out
                options = [word for word in words if word.startswith("--")]
                assert [option for option in options if option.removeprefix("--no-") not in told] == [], words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("7",), "no recipe of table 7"),
        (("10",), "there are no samples (--samples)"),
        (("--plan",), "which table?"),
        (("10", "--dry", "--samples", "x"), "--samples is not used with --dry"),
        (("10", "--pictures", "2", "2"), "--pictures is used with --dry only"),
        (("10", "--dry", "--pictures", "1", "2"), "pictures is 1; expected at least 2"),
        (("10", "--plan", "--utilisation", "2"), "utilisation is 2; expected a share"),
        (("15", "--samples", "x"), "table 15 cannot be reproduced"),
        (("10", "--samples", "x", "--dtype", "int8"), "'int8'"),
    ],
)
def test_what_cannot_be_done_is_refused(command, words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command("reproduce", *words)
    assert ended.code == 2
    assert told in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("table", ["10", "19", "22"])
def test_a_rehearsal_runs_all_steps_and_says_on_everything_what_it_is(command, table, tmp_path):
    ended = command("reproduce", table, "--dry", "--run", tmp_path / "run", *SMALL, "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert found["watermark"] == WATERMARK
    assert found["rehearsed"]
    assert all(row["watermark"] == WATERMARK for row in found["rows"])
    assert "paper" not in json.dumps(found["rows"]).replace(WATERMARK, "")
    home = tmp_path / "run" / "embedded"
    for path in home.rglob("*"):
        if path.suffix == ".md" or path.name in (f"table-{table}-embedded.json", "artifact.json"):
            assert WATERMARK in path.read_text(), path
    assert not (home / "report").exists()
    if table == "10":
        assert [row["by"] for row in found["rows"]] == ["sparsevlm", "fusion", "ratio", "calibrated"]
        assert all(0 <= row["score"]["mean"] <= 1 for row in found["rows"])


@pytest.mark.slow
def test_a_killed_rehearsal_goes_on(command, tmp_path):
    words = ["reproduce", "10", "--dry", "--run", str(tmp_path / "run"), *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "clasp_calib.cli", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    journal = tmp_path / "run" / "embedded" / "calibrated" / "study" / "scores.jsonl"
    until = time.monotonic() + 300
    while not (journal.exists() and journal.stat().st_size > 2000) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    known = journal.read_bytes()
    ended = command(*words, "--json")
    assert ended.code == 0, ended.err
    assert journal.read_bytes().startswith(known[: known.rindex(b"\n") + 1])
    whole = command("reproduce", "10", "--dry", "--run", tmp_path / "whole", *SMALL, "--json").json
    assert whole["rows"] == ended.json["rows"]
