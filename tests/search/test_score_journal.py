"""The journal of a search: what was scored stays scored, whatever happens to the process."""

import json
import os
import signal
import subprocess
import sys

import pytest
import xxhash

from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.search.score_journal import JOURNAL, ScoreJournal

STUDY = "8/race/object"
NAMES = ["own/rho=1", "deep/rho=0.5"]


@pytest.fixture
def opened():
    """Opens journals, one at a time as processes do, and closes them."""
    last = []

    def open_(root):
        while last:
            last.pop().close()
        last.append(ScoreJournal(root))
        return last[-1]

    yield open_
    for journal in last:
        journal.close()


def filled(journal, samples=3):
    journal.begin(STUDY, "setup")
    for sample in range(samples):
        journal.record(STUDY, f"calibration/{sample}", NAMES, Scores((1.0, sample / 3), (0.1, 1e-17 * sample)))
    return journal


def test_what_was_recorded_is_read_back_bit_for_bit(tmp_path, opened):
    filled(opened(tmp_path))
    journal = opened(tmp_path)
    assert journal.begin(STUDY, "setup") == 6
    for sample in range(3):
        key = f"calibration/{sample}"
        assert journal.scores(STUDY, key, NAMES[::-1]) == [(sample / 3, 1e-17 * sample), (1.0, 0.1)]
        assert journal.known(STUDY, key, ["other", *NAMES]) == NAMES
    assert journal.known(STUDY, "calibration/3", NAMES) == []


def test_a_score_may_have_no_likelihood_and_a_sample_several_lines(tmp_path, opened):
    journal = opened(tmp_path)
    journal.begin(STUDY, "setup")
    journal.record(STUDY, "a", NAMES[:1], Scores((0.5,)))
    journal.record(STUDY, "a", NAMES[1:], Scores((1.0,), (2.0,)))
    for of in (journal, opened(tmp_path)):
        assert of.scores(STUDY, "a", NAMES) == [(0.5, None), (1.0, 2.0)]


def test_studies_do_not_mix_and_another_setup_is_refused(tmp_path, opened):
    journal = filled(opened(tmp_path))
    assert journal.begin("8/grid/object", "other") == 0
    journal = opened(tmp_path)
    assert journal.setup("8/grid/object") == "other"
    assert journal.setup("9/race/object") is None
    with pytest.raises(StudyError, match=rf"'{STUDY}' was recorded with other settings .*fresh place with --run"):
        journal.begin(STUDY, "changed")


def test_a_journal_may_end_anywhere(tmp_path, opened):
    """A kill tears the last line at most; the rest is read, and the next line does not stick to the torn one."""
    filled(opened(tmp_path / "whole"))
    whole = (tmp_path / "whole" / JOURNAL).read_bytes()
    assert whole.count(b"\n") == 4
    torn = tmp_path / "torn" / JOURNAL
    torn.parent.mkdir()
    for cut in range(len(whole) + 1):
        torn.write_bytes(whole[:cut])
        journal = opened(torn.parent)
        assert journal.begin(STUDY, "setup") == 2 * max(0, whole[:cut].count(b"\n") - 1)
        assert torn.read_bytes() == whole[: max(len(whole.split(b"\n")[0]) + 1, whole[:cut].rfind(b"\n") + 1)]
        for sample in range(3):
            key = f"calibration/{sample}"
            if not journal.known(STUDY, key, NAMES):
                journal.record(STUDY, key, NAMES, Scores((1.0, sample / 3), (0.1, 1e-17 * sample)))
        assert torn.read_bytes() == whole


@pytest.mark.parametrize("line", range(4))
def test_a_changed_line_is_found(tmp_path, opened, line):
    filled(opened(tmp_path))
    path = tmp_path / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"object", b"abject")
    path.write_bytes(b"".join(lines))
    opened(tmp_path / "elsewhere")
    with pytest.raises(StudyError, match=rf"line {line + 1} of the journal .* is damaged \(its checksum .*remove the"):
        ScoreJournal(tmp_path)


@pytest.mark.parametrize("text", [b"{}", b"[]", b'{"study":"x","sample":"a","candidates":["b"],"score":[],"nll":null}'])
def test_a_line_that_says_nothing_is_damaged(tmp_path, text):
    (tmp_path / JOURNAL).write_bytes(b"%s %s\n" % (xxhash.xxh64_hexdigest(text).encode(), text))
    with pytest.raises(StudyError, match="line 1 of the journal"):
        ScoreJournal(tmp_path)


def test_lines_are_json_behind_a_checksum(tmp_path, opened):
    filled(opened(tmp_path), samples=1)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    for line in lines:
        checksum, text = line.split(" ", 1)
        assert checksum == xxhash.xxh64_hexdigest(text.encode())
    assert json.loads(lines[1].split(" ", 1)[1]) == {
        "study": STUDY,
        "sample": "calibration/0",
        "candidates": NAMES,
        "score": [1.0, 0.0],
        "nll": [0.1, 0.0],
    }


def test_names_that_are_no_utf8_are_kept(tmp_path, opened):
    journal = opened(tmp_path)
    journal.begin(STUDY, "setup")
    journal.record(STUDY, "calibration/\udc80", ["é"], Scores((1.0,)))
    assert opened(tmp_path).scores(STUDY, "calibration/\udc80", ["é"]) == [(1.0, None)]


HOLD = """
import sys, time
from pathlib import Path
from clasp_calib.search.score_journal import ScoreJournal
journal = ScoreJournal(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_two_searches_do_not_write_at_once_and_a_kill_frees_the_journal(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match=r"another process is writing to .*wait for it, or give another --run"):
            ScoreJournal(tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
    ScoreJournal(tmp_path).close()


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot use .*--run"):
        ScoreJournal(tmp_path / "file" / "study")
