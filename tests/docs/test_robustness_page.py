"""The page of what can go wrong: every test that it names is there, and every kind that is fuzzed has its row."""

import re
from pathlib import Path

from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/robustness.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there():
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(named) > 30
    assert not {name for name in named if not (ROOT / name).exists()}


def test_every_kind_that_is_fuzzed_has_its_row():
    rows = re.findall(r"^\| `([\w-]+)` \| [\d,]+ \| [\d,]+ \| [\d,]+ \| 0 \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(TARGETS)
