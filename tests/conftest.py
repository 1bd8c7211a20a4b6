"""A command line, run in this process."""

import json
from collections import defaultdict
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave most of the pairs of the two parameters of ``@pytest.mark.thinned(one, other)`` to the slow tests.

    Architectures and modes are made of the same parts, and what fails for a pair alone is rare.
    """
    of_test = defaultdict(list)
    for item in items:
        if thinned := item.get_closest_marker("thinned"):
            of_test[item.path, item.originalname].append((item, [item.callspec.params[name] for name in thinned.args]))
    for pairs in of_test.values():
        values = [[], []]
        for _, pair in pairs:
            for value, known in zip(pair, values, strict=True):
                if value not in known:
                    known.append(value)
        less = min(map(len, values))
        for item, pair in pairs:
            one, other = (known.index(value) % less for value, known in zip(pair, values, strict=True))
            if one != other:
                item.add_marker(pytest.mark.slow)


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
