"""Damaged files are taken or refused with a `ClaspError`, whatever the damage; the harness notices all else."""

import os
import time
from pathlib import Path

import pytest
from fuzz import harness
from fuzz.harness import Target, case, fuzz
from fuzz.targets import TARGETS

from clasp_calib.common.errors import ClaspError, InputError

CASES, SECONDS = 2000, 15
"""Of each target in a run of the slow tests; ``make fuzz`` runs more."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_not_damaged_is_taken(name: str, tmp_path: Path):
    target = TARGETS[name]
    target.seed(tmp_path)
    same = Target(name, target.seed, target.attempt, (lambda data, _: data,), target.files)
    assert case(same, tmp_path, 0) == "taken"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_errors_that_say_what_is_wrong(name: str):
    outcome = fuzz(TARGETS[name], CASES, seconds=SECONDS)
    assert outcome.findings == {}
    assert outcome.refused > 20
    assert outcome.taken + outcome.refused > 100


def planted(attempt, **more) -> Target:
    return Target("planted", lambda place: (place / "a").write_bytes(b"1234"), attempt, (lambda data, _: data,), **more)


def stop_or_go(place: Path) -> None:
    """Every case is refused."""
    raise InputError("no")


def raises(place: Path) -> None:
    raise ValueError("this is no error of ours")


def ends(place: Path) -> None:
    os.abort()


def hangs(place: Path) -> None:
    time.sleep(60)


def takes_memory(place: Path) -> None:
    bytearray(harness.MEMORY * 2)


def overwrites(place: Path) -> None:
    (place / "../victim").write_text("mine")


def leaves(place: Path) -> None:
    (place / "../new").touch()
    raise ClaspError("refused, and yet")


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (raises, "ValueError at test_fuzz.py"),
        (ends, "ended the process, with -6"),
        (hangs, "was not done"),
        (takes_memory, "MemoryError"),
        (overwrites, "touched outer/victim"),
        (leaves, "left ['outer/new'] outside"),
    ],
)
def test_what_must_not_happen_is_noticed_in_every_case(attempt, told, monkeypatch):
    monkeypatch.setattr(harness, "SECONDS", 0.5)
    outcome = fuzz(planted(attempt), 2)
    assert set(outcome.findings) == {0, 1}
    assert all(told in what for what in outcome.findings.values())


def test_cases_are_counted_over_batches(monkeypatch):
    monkeypatch.setattr(harness, "BATCH", 3)
    outcome = fuzz(planted(stop_or_go), 7, first=5)
    assert (outcome.refused, outcome.taken, outcome.findings) == (7, 0, {})


def test_a_case_is_the_same_each_time(tmp_path: Path):
    seen: list[bytes] = []
    target = Target("t", _write, lambda place: seen.append((place / "a").read_bytes()), TARGETS["samples"].mutations)
    _write(tmp_path)
    for number in (3, 4, 3):
        case(target, tmp_path, number)
    assert seen[0] == seen[2] != seen[1]


def _write(place: Path) -> None:
    (place / "a").write_bytes(b'{"a": [1, 2]}\n' * 5)
