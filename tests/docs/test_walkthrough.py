"""docs/guide/own-model.md, executed: its questions, its commands in order, and what other pages say of the result."""

import json
from pathlib import Path

import numpy as np
import pytest
from own_data import lay_out
from pages import ROOT, blocks, commands, execute

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.choices import ClassChoice, Sureness

PAGE = ROOT / "docs" / "guide" / "own-model.md"


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The directory of a reader who did everything that the page says, and the commands that were run."""
    place = tmp_path_factory.mktemp("walkthrough")
    (questions,) = blocks(PAGE, "json")
    lay_out(place, questions.splitlines())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in commands(PAGE):
            execute(words)
    return place


def test_every_step_is_on_the_page():
    steps = [words[1] for words in commands(PAGE)]
    assert steps == [
        "doctor",
        "label",
        "cache-features",
        "search",
        "search",
        "search",
        "evaluate",
        "artifact",
        "generate",
    ]


def test_the_commands_leave_what_the_pages_say(walked: Path):
    run = walked / "my-run"
    table = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
    for name in (
        "labels.parquet",
        "space.yaml",
        "study/scores.jsonl",
        "study/journal.log",
        "report/search.png",
        "config.json",
        "log.jsonl",
        "report/evaluation-test.md",
        "report/evaluation-test.png",
    ):
        assert (run / name).is_file()
        assert name.split("/")[-1] in table
    assert read_artifact(run / "artifact").budgets == ("192", "60%")
    assert set(json.loads((run / "config.json").read_text())) == {
        "model",
        "label",
        "cache-features",
        "search",
        "evaluate",
    }


def test_the_artifact_reads_as_its_page_says(walked: Path, monkeypatch):
    monkeypatch.chdir(walked)
    names: dict = {}
    for block in blocks(ROOT / "docs" / "reference" / "artifact-format.md", "python"):
        exec(block, names)
    assert np.array_equal(names["alpha_by_hand"], np.float32(names["alpha"]))
    assert round(float(names["rho_by_hand"]), 6) == names["rho"]


def keys_of(heading: str) -> set[str]:
    """The keys that the tables under a heading of the artifact's page list."""
    page = (ROOT / "docs" / "reference" / "artifact-format.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word.strip(" `") for row in rows for word in row.split(",")}


def test_the_manifest_has_the_keys_that_its_page_lists(walked: Path):
    manifest = json.loads((walked / "my-run" / "artifact" / "artifact.json").read_text())
    assert keys_of("The manifest") == set(manifest)


def test_a_choice_has_the_keys_that_its_page_lists():
    of_format_1 = {"selection", "selection_default", "confirmation", "refinement"}
    assert keys_of("A choice") == ({*ClassChoice.model_fields} - of_format_1) | {*Sureness.model_fields}


def test_the_journal_reads_as_its_page_says(walked: Path, monkeypatch):
    monkeypatch.chdir(walked)
    names: dict = {}
    for block in blocks(ROOT / "docs" / "guide" / "search.md", "python"):
        exec(block, names)
    assert "own/rho=1" in names["scores"]
    assert all(names["scores"].values())
