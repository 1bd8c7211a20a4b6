"""All recipes are read, name what there is, and agree with themselves and with the paper's own averages."""

import re
from pathlib import Path

import pytest
import yaml

from clasp_calib.artifacts.one_part import PARTS as ARTIFACT_PARTS
from clasp_calib.baselines.registry import METHODS
from clasp_calib.common.errors import InputError
from clasp_calib.recipes import registry
from clasp_calib.recipes.command_lines import CLASP, LMMS, RecipeSetting, ReproductionOptions, command_lines
from clasp_calib.recipes.recipe_schema import CALIBRATED, PARTS, UNPRUNED, RecipeRow, TableRecipe
from clasp_calib.recipes.registry import TABLES, paper_table

FOLDER = Path(registry.__file__).parent
SETTING = RecipeSetting(Path("run"), ReproductionOptions("mine.jsonl"))
AVERAGES_OFF = {"FastV", "LLaVA-PruMerge", "PDrop", "FasterVLM", "DART"}
"""Of Table 2: what its notes say."""


def test_there_is_a_file_for_each_table_and_none_besides():
    assert {path.stem for path in FOLDER.glob("table-*.yaml")} == {f"table-{number:02d}" for number in TABLES}


@pytest.mark.parametrize("number", TABLES)
def test_a_recipe_names_what_there_is(number):
    table = paper_table(number)
    assert table.recipe.table == number
    assert set(table.methods) <= METHODS.keys()
    assert {row.by for row in table.recipe.rows} <= {UNPRUNED, *PARTS, *CALIBRATED, *METHODS}
    assert table.model.own_layer <= table.model.tower.layers
    assert not table.model.pinned
    assert table.model.revision == "main"
    assert any("not pinned" in note for note in table.notes)


def test_parts_are_those_that_an_artifact_has():
    assert set(PARTS) == set(ARTIFACT_PARTS)


def test_every_column_and_model_is_of_a_table():
    named = {key for number in TABLES for key in paper_table(number).recipe.columns}
    assert named == set(yaml.safe_load((FOLDER / "columns.yaml").read_text())["columns"])
    models = {paper_table(number).recipe.model for number in TABLES}
    assert models == set(yaml.safe_load((FOLDER / "models.yaml").read_text())["models"])


@pytest.mark.parametrize("number", [n for n in TABLES if "average" in paper_table(n).columns])
def test_printed_averages_are_those_of_their_rows(number):
    """So a digit that was copied wrongly shows."""
    whole, *rows = paper_table(number).recipe.rows
    for row in rows:
        shares = [row.paper[key] / whole.paper[key] for key in row.paper if key != "average"]
        off = abs(100 * sum(shares) / len(shares) - row.paper["average"]) > 0.15
        assert off == (number == 2 and row.name in AVERAGES_OFF), (row, shares)


@pytest.mark.parametrize("number", TABLES)
def test_every_row_that_can_be_run_has_its_command_lines(number):
    table = paper_table(number)
    steps = command_lines(table, SETTING)
    assert (not steps) == bool(table.recipe.missing)
    asked = [(step.row.group, step.row.name, step.column) for step in steps if step.kind == "task"]
    assert asked == [(row.group, row.name, key) for row in table.runnable for key in table.tasks]
    assert {step.argv[0] for step in steps} <= {CLASP, LMMS}
    places = [step.results for step in steps if step.results]
    assert len(set(places)) == len(places)


def test_the_guide_lists_the_tables_as_they_are():
    page = (Path(__file__).parents[2] / "docs" / "guide" / "reproduce.md").read_text(encoding="utf-8")
    listed = {int(number): can for number, can in re.findall(r"^\| (\d+) \| [^|]+ \| (yes|in part|no) \|", page, re.M)}
    tables = {number: paper_table(number) for number in TABLES}
    assert listed == {n: "no" if of.recipe.missing else "in part" if of.lacking else "yes" for n, of in tables.items()}


def test_an_unknown_table_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match=r"no recipe of table 4; choose from 1, 2, 3, 5, .*23"):
        paper_table(4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": [{"name": "x", "by": "unpruned", "budget": "192"}]}, "every row has a budget, but for the unpruned"),
        ({"rows": [{"name": "x", "by": "fastv"}]}, "every row has a budget"),
        ({"rows": [{"name": "x", "by": "fastv", "budget": "many"}]}, "budget"),
        ({"rows": [{"name": "x", "by": "fastv", "budget": "192", "paper": {"gqa": 1}}]}, "has no column 'gqa'"),
        ({"rehearsal": {"64": "64"}}, "rehearsal: names"),
        ({"rows": [{"name": "x", "by": "fastv", "budget": "192"}] * 2}, "is there twice"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_recipe_that_does_not_agree_with_itself_is_refused(change, told):
    good = {
        **{"table": 1, "title": "x", "kind": "benchmarks", "model": "m", "columns": ["pope"]},
        "rows": [{"name": "x", "by": "fastv", "budget": "192", "paper": {"pope": 1}}],
        "rehearsal": {"192": "192"},
    }
    TableRecipe.model_validate(good)
    with pytest.raises(ValueError, match=told):
        TableRecipe.model_validate({**good, **change})


def test_a_directory_that_lmms_eval_would_take_apart_is_refused():
    with pytest.raises(InputError, match=r"my,run goes into --model_args of lmms-eval"):
        RecipeSetting(Path("my,run"), ReproductionOptions())


def test_rows_of_the_paper_are_as_it_printed_them():
    assert paper_table(10).recipe.rows[3] == RecipeRow(
        name="+ Both (CLASP)",
        by="calibrated",
        budget="192",
        paper={"mme": 1848, "textvqa-ocr": 57.6, "gqa": 60.4, "pope": 85.6},
    )
    dart = {row.budget: row.paper["mme"] for row in paper_table(1).recipe.rows if row.by == "dart"}
    assert dart == {"192": 1856, "128": 1845, "64": 1765}
