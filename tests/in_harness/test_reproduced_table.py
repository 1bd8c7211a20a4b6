"""A recipe's tasks through the real lmms-eval: the numbers of a table are those of `evaluate`."""

import sys
from dataclasses import replace

import pytest

import clasp_calib as cc
from clasp_calib.api import reproducing
from clasp_calib.recipes import command_lines
from clasp_calib.recipes.recipe_schema import RecipeColumn, RecipeRow
from clasp_calib.recipes.registry import PaperTable, paper_table

pytestmark = pytest.mark.harness


def test_a_table_holds_what_lmms_eval_found(harnessed, tmp_path, monkeypatch):
    """Rows without a calibration, so that there are no steps before the tasks."""
    of = paper_table(10)
    rows = (
        RecipeRow(name="whole", by="unpruned", paper={"embedded": 50.0}),
        RecipeRow(name="peer", by="sparsevlm", budget="192", paper={"embedded": 60.0}),
    )
    recipe = of.recipe.model_copy(update={"columns": ("embedded",), "rows": rows})
    column = RecipeColumn(title="Embedded", task="embedded", metrics=("exact",), scale=100, questions=30)
    table = PaperTable(recipe, of.model, of.calibration, {"embedded": column})
    whole = command_lines.command_lines

    def with_tasks(table, setting):
        steps = whole(table, setting)
        return [replace(step, argv=(*step.argv, "--include_path", str(harnessed.tasks))) for step in steps]

    monkeypatch.setattr(reproducing, "paper_table", lambda number: table)
    monkeypatch.setattr(reproducing, "command_lines", with_tasks)
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    options = cc.ReproductionOptions("none.jsonl", model="reference", device="cpu", dtype="float32")
    report = cc.reproduce(10, options, run=tmp_path / "run")
    measured = {row["by"]: row["columns"]["embedded"] for row in report.values}
    scores = harnessed.scores("unpruned")
    assert measured["unpruned"]["measured"] == pytest.approx(100 * sum(scores) / len(scores))
    assert measured["unpruned"]["difference"] == measured["unpruned"]["measured"] - 50
    assert 0 <= measured["sparsevlm"]["measured"] <= 100
