"""The journal of a search: what was scored stays scored, whatever happens to the process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from clasp_calib.calib.candidate import Candidate
from clasp_calib.common.errors import StudyError
from clasp_calib.search.ledger import JOURNAL, Ledger, open_storage

CANDIDATES = [Candidate("own", (1.0,), 1.0), Candidate("own", (1.0,), 0.5), Candidate("deep", (1.0,), 0.5)]
SETUP = {"model": "a", "samples": [1, 2]}


def ledger(root, name="8/object", candidates=CANDIDATES, setup=SETUP):
    return Ledger(open_storage(root), name, candidates, setup)


def test_what_was_recorded_is_read_back(tmp_path):
    first = ledger(tmp_path)
    assert (first.recorded, first.known(0)) == (0, {})
    first.record(0, {0: 1.0, 1: 0.0, 2: 0.25})
    first.record(1_000_000, {2: 1.0})
    again = ledger(tmp_path)
    for of in (first, again):
        assert of.known(0) == {0: 1.0, 1: 0.0, 2: 0.25}
        assert of.known(1_000_000) == {2: 1.0}
        assert (of.known(1), of.recorded) == ({}, 4)


def test_studies_of_one_journal_do_not_mix(tmp_path):
    ledger(tmp_path).record(0, {0: 1.0})
    assert ledger(tmp_path, "8/text").recorded == 0
    assert ledger(tmp_path, "9/object", setup={"model": "b"}).recorded == 0


@pytest.mark.parametrize("setup", [{"model": "b", "samples": [1, 2]}, {"model": "a", "samples": [2, 1]}, {}])
def test_another_setup_is_refused(tmp_path, setup):
    ledger(tmp_path).record(0, {0: 1.0})
    with pytest.raises(StudyError, match=r"'8/object' was recorded with other settings .*fresh place with --run"):
        ledger(tmp_path, setup=setup)
    assert ledger(tmp_path, setup=dict(reversed(SETUP.items()))).recorded == 1


def test_finished_trials_are_finished_once(tmp_path):
    states = []
    for _ in range(2):
        of = ledger(tmp_path)
        of.record(0, {c: 0.5 for c in range(3) if not of.known(0)})
        of.reject(1)
        of.complete(0, 0.5)
        of.complete(0, 0.5)
        study = open_storage(tmp_path)
        trials = study.get_all_trials(study.get_study_id_from_name("8/object"))
        states.append({t.user_attrs["candidate"]: (t.state.name, t.value) for t in trials})
    assert states[0] == {
        "own/rho=1": ("COMPLETE", 0.5),
        "own/rho=0.5": ("PRUNED", 0.5),
        "deep/rho=0.5": ("RUNNING", None),
    }
    assert states[1] == states[0]


def test_a_journal_may_end_anywhere(tmp_path):
    """A kill tears the last line at most; the rest is read, and the next line does not stick to the torn one."""
    of = ledger(tmp_path / "whole")
    for sample in range(3):
        of.record(sample, {c: float(c == sample) for c in range(3)})
    whole = (tmp_path / "whole" / JOURNAL).read_bytes()
    (tmp_path / "torn").mkdir()
    lines = whole.count(b"\n")
    last = -1
    for cut in [*range(0, len(whole), 97), len(whole) - 1]:
        (tmp_path / "torn" / JOURNAL).write_bytes(whole[:cut])
        resumed = ledger(tmp_path / "torn")
        assert resumed.recorded >= last
        last = resumed.recorded
        for sample in range(3):
            lacking = {c: float(c == sample) for c in range(3) if c not in resumed.known(sample)}
            resumed.record(sample, lacking)
        again = ledger(tmp_path / "torn")
        assert all(again.known(sample) == of.known(sample) for sample in range(3))
        assert all(json.loads(line) for line in (tmp_path / "torn" / JOURNAL).read_bytes().splitlines())
    assert last == 8
    assert lines > 9


def test_a_damaged_journal_says_what_to_do(tmp_path):
    ledger(tmp_path).record(0, {0: 1.0})
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join([*lines[:3], b"{torn\n", *lines[3:]]))
    with pytest.raises(StudyError, match=r"journal .*journal\.log is damaged .*remove it to measure again"):
        ledger(tmp_path)


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot write to the study .*--run"):
        open_storage(tmp_path / "file" / "study")


HOLD = """
import sys, time
from pathlib import Path
from clasp_calib.search.ledger import open_storage
open_storage(Path(sys.argv[1]))._backend._lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path):
    ledger(tmp_path).record(0, {0: 1.0})
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
    begun = time.monotonic()
    of = ledger(tmp_path)
    of.record(1, {0: 0.0})
    assert of.recorded == 2
    assert time.monotonic() - begun < 5
