"""The table of docs/reference/architectures.md says what is tested, and nothing else."""

import pytest

from clasp_calib.runtime.adapters import ADAPTERS
from tools.docs.architectures import COLUMNS, PAGE, WHY, page, shown, table

EVERYTHING = {name: {column: True for column in COLUMNS if (name, column) not in WHY} for name in ADAPTERS}


@pytest.mark.slow
def test_a_mark_stands_for_a_test_that_there_is():
    assert page(shown("--collect-only")) == PAGE.read_text(encoding="utf-8"), "run `python -m tools.docs.architectures`"


def test_a_test_that_fails_is_said_to():
    failing = EVERYTHING | {"qwen2_vl": {**EVERYTHING["qwen2_vl"], "beams": False}}
    assert table(EVERYTHING).count("failed") == 0
    assert next(line for line in table(failing).splitlines() if "failed" in line).startswith("| `qwen2_vl` |")


@pytest.mark.parametrize(
    ("column", "tested", "told"),
    [("beams", None, "qwen2_vl, beams: no test and no reason"), ("videos", True, "llava, videos: a test and a reason")],
)
def test_an_empty_cell_needs_a_reason_and_a_mark_none(column, tested, told):
    name = told.split(",")[0]
    changed = {**EVERYTHING[name], column: tested}
    if tested is None:
        del changed[column]
    with pytest.raises(SystemExit, match=told):
        table(EVERYTHING | {name: changed})
