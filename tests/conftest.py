"""A command line, run in this process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from clasp_calib.cli import run
from tools.default_configurations import no_default_configurations


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture(scope="session", autouse=True)
def quick_generation():
    """An eighth of the time of all tests."""
    with no_default_configurations():
        yield


@pytest.fixture
def command(capsys) -> Command:
    """Runs a command line in this process."""

    def call(*words: object) -> Ended:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return Ended(code, *capsys.readouterr())

    return call
