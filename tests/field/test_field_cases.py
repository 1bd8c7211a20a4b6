"""Inputs as people have them: every case of `field_cases` passes. One run of its script serves all tests here."""

import re
import subprocess
import sys
from pathlib import Path

import field_cases
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """Name of a case -> the line that was printed for it."""
    done = subprocess.run(
        [sys.executable, field_cases.__file__, "--bin", sys.prefix],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return {found[1]: found[0] for found in re.finditer(r"^(?:PASS|FAIL) (\w+).*$", done.stdout, re.MULTILINE)}


@pytest.mark.parametrize("name", field_cases.CASES)
def test_field_case(told: dict[str, str], name: str):
    assert told.get(name) == f"PASS {name}"
