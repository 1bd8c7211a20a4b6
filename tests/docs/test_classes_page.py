"""docs/guide/classes.md, executed: its questions and its commands in order."""

import pytest
from own_data import lay_out
from pages import ROOT, blocks, commands, execute

from clasp_calib.artifacts.artifact import read_artifact

PAGE = ROOT / "docs" / "guide" / "classes.md"


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The directory of a reader who did everything that the page says."""
    place = tmp_path_factory.mktemp("classes")
    (questions,) = blocks(PAGE, "json")
    lay_out(place, questions.splitlines())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in commands(PAGE):
            execute(words)
    return place


@pytest.mark.slow
def test_the_artifacts_have_the_classes_that_the_page_says(walked):
    one, tasks = (read_artifact(walked / run / "artifact") for run in ("one", "tasks"))
    assert (one.classes, one.manifest.class_from) == (("all",), None)
    assert tasks.classes == ("Counting", "Other", "Street signs")
    assert (tasks.manifest.class_from, tasks.manifest.default_class) == ("task", "Other")
    for artifact in (one, tasks):
        assert set(artifact.entry(192).results["calibrated"]) - {"macro"} <= {*artifact.classes}


@pytest.mark.slow
def test_commands_that_are_only_shown_name_options_that_there_are(walked, command, monkeypatch):
    monkeypatch.chdir(walked)
    (shown,) = blocks(PAGE, "text")
    train, _ = (line.split()[1:] for line in shown.splitlines())
    assert "a router needs" in command(*train).err
