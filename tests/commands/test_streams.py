"""Outputs that are closed, full, narrow or of another alphabet."""

import json
import os
import subprocess
import sys

import pytest

from clasp_calib.common.sample_sources import load_samples

CLASP = f"{sys.executable} -m clasp_calib.cli"


def shell(line, **environment):
    world = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, env=world, check=False)


@pytest.mark.parametrize("output", ["", "--json"])
def test_a_full_output_is_told(output):
    ended = shell(f"{CLASP} rules test 'How many?' {output} > /dev/full")
    assert ended.returncode == 2
    assert b"No space left on device" in ended.stderr
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("errors", ["2> /dev/full", "2> >(true)", "2>&-"])
def test_an_error_that_nobody_can_be_told_keeps_its_code(errors):
    assert shell(f"{CLASP} label none.jsonl {errors}; exit $?").returncode == 2


@pytest.mark.parametrize("words", ["rules test 'How many?' --json", "search --help", "doctor"])
def test_a_reader_that_leaves_is_no_news(words):
    ended = shell(f"{CLASP} {words} | true; exit ${{PIPESTATUS[0]}}")
    assert ended.stderr == b""
    assert ended.returncode in (0, 1)


def test_closed_outputs_do_not_become_the_next_file(tmp_path):
    (tmp_path / "s.jsonl").write_text(json.dumps({"question": "How many?"}))
    ended = shell(f"{CLASP} label {tmp_path}/s.jsonl --run {tmp_path}/run <&- >&- 2>&-")
    assert ended.returncode == 0
    assert load_samples(tmp_path / "run" / "labels.parquet").table["class"].to_pylist() == ["counting"]
    assert shell(f"{CLASP} label {tmp_path}/none.jsonl --run {tmp_path}/run >&- 2>&-").returncode == 2


@pytest.mark.parametrize(
    "world",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}, marks=pytest.mark.slow),
        pytest.param({"LC_ALL": "C"}, marks=pytest.mark.slow),
    ],
)
def test_an_output_of_another_alphabet(tmp_path, world):
    """What is printed is printed, and JSON stays JSON; names of files are what they were."""
    (tmp_path / "s.jsonl").write_text(json.dumps({"question": "Wie viele Vögel? 鳥"}))
    run = tmp_path / "größer"
    ended = shell(f"{CLASP} label {tmp_path}/s.jsonl --run {run} --json", **world)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["out"] == str(run / "labels.parquet")
    assert (run / "labels.parquet").is_file()
    ended = shell(f"{CLASP} label {tmp_path}/s.jsonl --run {run}", **world)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "world",
    [
        {"COLUMNS": "1"},
        *(pytest.param(of, marks=pytest.mark.slow) for of in ({"COLUMNS": "0"}, {"COLUMNS": "-3"}, {"TERM": "dumb"})),
    ],
)
def test_a_narrow_or_dumb_terminal(world):
    for words in ("search --help", "rules test 'How many?'", "label none.jsonl"):
        ended = shell(f"{CLASP} {words}", **world)
        assert ended.returncode in (0, 2)
        assert b"Traceback" not in ended.stderr
