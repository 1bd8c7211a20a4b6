"""The command line itself: help, exit codes, one line for an error, and nothing heavy before there is work."""

import subprocess
import sys

import pytest
import typer

from clasp_calib import __version__
from clasp_calib.api import installation
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.commands.app import app
from clasp_calib.common.errors import ClaspError

HEAVY = ("torch", "transformers", "vllm", "optuna", "h5py", "pyarrow")


def commands(group, *names):
    """The words of every command that is not a group."""
    for name, of in group.commands.items():
        yield from commands(of, *names, name) if hasattr(of, "commands") else [(*names, name)]


COMMANDS = sorted(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command, words):
    for flag in ("--help", "-h"):
        ended = command(*words, flag)
        assert (ended.code, ended.err) == (0, "")
        assert f"Example: clasp-calib {' '.join(words)}" in ended.out


HELP = """
import contextlib, io, sys
from clasp_calib.cli import run
for words in {commands!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([*words, "--help"]) == 0
    assert "Example" in out.getvalue()
print(*sorted(set({heavy!r}) & set(sys.modules)))
"""


def test_no_help_imports_anything_heavy():
    code = HELP.format(commands=COMMANDS, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_no_command_shows_help_and_the_version_is_the_package_s(command):
    for words in ((), ("artifact",)):
        ended = command(*words)
        assert ended.code == 2
        assert "Usage: clasp-calib" in ended.out + ended.err
    assert command("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["serach"], ["label"], ["search", "--seed", "x"], ["search", "--first", "0"], ["search", "--strategy", "luck"]],
)
def test_a_wrong_command_line_ends_with_2(command, words):
    ended = command(*words)
    assert ended.code == 2
    assert "Usage: clasp-calib" in ended.err
    assert "Traceback" not in ended.err


def test_doctor_ends_with_1_only_if_something_needed_is_missing(command, monkeypatch, tmp_path):
    ended = command("doctor", "--run", tmp_path / "not" / "yet", "--json")
    assert ended.code == 0
    assert ended.json["ready"]
    assert ended.json["versions"]["clasp-calib"] == __version__
    assert ended.json["free_disk_bytes"] > 0
    assert any(device.startswith("cpu") for device in ended.json["devices"])
    assert not (tmp_path / "not").exists()
    assert command("doctor").out.splitlines()[-1] == "ready"
    monkeypatch.setattr(installation, "REQUIRED", ("torch", "no-such-package"))
    ended = command("doctor")
    assert ended.code == 1
    assert ended.out.splitlines()[-1] == "missing: no-such-package; pip install clasp-calib"
    assert command("doctor", "--json").json["ready"] is False


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClaspError("one\n  two [red]three[/red]"), "error: one two [red]three[/red]\n"),
        (OSError(28, "No space left on device", "/x"), "error: [Errno 28] No space left on device: '/x'; check that"),
    ],
)
def test_an_error_is_one_line(command, monkeypatch, error, expected, finished):
    def fail(*_):
        raise error

    monkeypatch.setattr("clasp_calib.artifacts.artifact.read_artifact", fail)
    ended = command("artifact", "show", "--run", finished.run)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(expected)
    assert ended.err.count("\n") == 1


def test_an_interrupted_command_says_that_it_goes_on(command, monkeypatch, begun, finished, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "scores", interrupted)
    words = [
        "search",
        *finished.words,
        "--budget",
        "50%",
        "--run",
        tmp_path,
        "--samples",
        finished.run / "labels.parquet",
    ]
    ended = command(*words, "--cache", finished.run / "cache")
    assert ended.code == 130
    assert ended.err.endswith(
        "interrupted; label, cache-features, search and compare go on where they stopped when the same command is "
        "given again\n"
    )
