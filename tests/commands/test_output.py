"""How tables look in terminals that are narrower than they are."""

import contextlib
import io
import json
import re

import pytest

from clasp_calib.commands import output

COLUMNS = ["method", "score", "retained", "minus calibrated", "tokens a layer", "decoder GFLOPs", "tower GFLOPs"]
ROWS = [
    ["unpruned", "100 [100, 100]", "100%", "+17 [+10, +33]", "576.0", "0.0603", "0.1234"],
    ["calibrated", "83 [70, 91]", "83%", "", "192.0", "0.0379", "0.1234"],
]


@pytest.mark.parametrize("columns", [66, 80, 200])
def test_no_word_of_a_table_is_cut(capsys, monkeypatch, columns):
    monkeypatch.setattr(output, "WIDE", columns)
    output.show("methods", COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    printed = set(re.findall(r"\S+", "\n".join(lines)))
    assert printed.issuperset(" ".join(word for line in [COLUMNS, *ROWS] for word in line).split())


def test_a_table_that_fits_is_printed_with_its_margins(capsys):
    output.show("methods", COLUMNS[:2], [row[:2] for row in ROWS])
    assert "  unpruned     100 [100, 100]  " in capsys.readouterr().out


def test_json_is_printed_where_output_is_kept_in_memory():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        output.emit({"name": "Größe"})
    assert json.loads(out.getvalue()) == {"name": "Größe"}
