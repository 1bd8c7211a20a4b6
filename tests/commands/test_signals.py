"""Ctrl-C, SIGTERM and SIGHUP: things are put back, a word on how to go on, no traceback; the second time, at once."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ready_runs import copy_of

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.search.score_journal import JOURNAL

WAITING = """
import sys, time
import clasp_calib.cli as cli
from clasp_calib.commands.app import app

@app.command("wait")
def wait(stubborn: bool = False) -> None:
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("put back", flush=True)
        if stubborn:
            time.sleep(60)

sys.argv = ["clasp-calib", "wait", *sys.argv[1:]]
cli.main()
"""
LOADING = """
import sys, time
import clasp_calib.cli as cli

class Slow:
    module = sys.argv[1]

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            print("ready", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
sys.argv[1:] = ["doctor"]
cli.main()
"""
ENDS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")]


def told(code, *signals, words=(), ignored=()):
    """What a script printed that is sent a signal each time it prints a line."""

    def before():
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    command = [sys.executable, "-c", code, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, preexec_fn=before, **pipes) as child:  # noqa: PLW1509
        lines = []
        for number in signals:
            lines.append(child.stdout.readline())
            child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert "Traceback" not in err
    return child.returncode, "".join(lines) + out, err


@pytest.mark.parametrize(("number", "code", "word"), ENDS)
def test_the_first_signal_puts_everything_back(number, code, word):
    ended, out, err = told(WAITING, number)
    assert (ended, out) == (code, "ready\nput back\n")
    assert word in err
    assert "when the same command is given again" in err


def test_the_second_signal_ends_at_once():
    ended, out, err = told(WAITING, signal.SIGINT, signal.SIGTERM, words=["--stubborn"])
    assert (ended, out) == (143, "ready\nput back\n")
    assert "ended by SIGTERM" in err


@pytest.mark.parametrize("module", ["clasp_calib.commands.app", "typer", "torch"])
@pytest.mark.parametrize(("number", "code", "word"), ENDS[:2])
def test_a_signal_while_it_loads_leaves_a_word(module, number, code, word):
    ended, _, err = told(LOADING, number, words=[module])
    assert ended == code
    assert word in err
    assert err.count("\n") == 1


def test_what_it_is_told_to_live_through_it_lives_through():
    """As with nohup, or in the background of a script."""
    hangs_up = WAITING.replace("time.sleep(60)", "os.kill(os.getpid(), 1)").replace("import sys", "import os, sys")
    assert told(hangs_up, ignored=[signal.SIGHUP])[:2] == (0, "ready\nput back\n")
    assert told(hangs_up)[0] == 129


def alive(group):
    """Processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            found += [stat] if int(number) == group and state != "Z" else []
    return found


@pytest.mark.slow
def test_a_search_with_workers_ends_and_goes_on(finished, tmp_path, command):
    """The signal reaches the workers too, as from a job scheduler."""
    ready = copy_of(finished, tmp_path)
    for name in ("study", "artifact"):
        shutil.rmtree(ready.run / name)
    words = ["search", *ready.words, "--budget", "50%", "--spend", "100%", "--threads", "1", "--workers", "2"]
    child = subprocess.Popen(
        [sys.executable, "-m", "clasp_calib.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journal = ready.run / "study" / JOURNAL
    limit = time.monotonic() + 240
    while (
        time.monotonic() < limit
        and child.poll() is None
        and not (journal.exists() and b'"score"' in journal.read_bytes())
    ):
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert "Traceback" not in err
    assert "ended by SIGTERM; " in err
    while alive(child.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not alive(child.pid)
    assert command(*words).code == 0
    assert read_artifact(ready.run / "artifact").manifest.budgets
