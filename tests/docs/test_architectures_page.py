"""The table of docs/reference/architectures.md says what is tested, and nothing else."""

import sys

from pages import ROOT
from speaking_architectures import FILMED, WALKED

from clasp_calib.runtime.adapters import ADAPTERS, adapter_for

sys.path.insert(0, str(ROOT / "tests" / "runtime"))
from architectures import CASES

PAGE = ROOT / "docs" / "reference" / "architectures.md"
COMMANDS = ("cache-features", "search", "evaluate", "generate", "compare", "ablate")
"""What `tests/commands/test_every_architecture.py` gives for each of `WALKED`."""


def test_a_mark_stands_for_a_command_that_was_given():
    header, _, *body = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert header == ["model_type", "budgets", "media", *COMMANDS]
    assert sorted(row[0] for row in body) == sorted(ADAPTERS)
    for name, budgets, media, *marks in body:
        assert budgets == ("percent" if adapter_for(CASES[name].build()[1]).ragged else "tokens, percent"), name
        assert (set(marks) == {"✓"}) == (name in WALKED), name
        assert ("videos" in media) == (name in FILMED), name
