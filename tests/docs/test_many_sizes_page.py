"""docs/guide/pictures-of-many-sizes.md, executed on a tiny model of dynamic resolution: all commands, in order."""

import json

import pytest
from pages import ROOT, blocks, commands, execute
from speaking_architectures import own_processors, speaking_directory  # noqa: F401
from speaking_models import write_picture

from clasp_calib.artifacts.artifact import read_artifact

PAGE = ROOT / "docs" / "guide" / "pictures-of-many-sizes.md"
SIZES = {"street": (112, 84), "kitchen": (84, 112), "harbour": (130, 60), "panorama": (300, 100)}


@pytest.fixture
def place(tmp_path, own_processors):  # noqa: F811
    """Where a reader of the page is: the model, the questions, pictures of several sizes and a video."""
    (questions,) = blocks(PAGE, "json")
    (tmp_path / "samples.jsonl").write_text(questions, encoding="utf-8")
    for number, (name, size) in enumerate(SIZES.items()):
        write_picture(tmp_path / "pictures" / f"{name}.jpg", number, *size)
    (tmp_path / "pictures" / "drive.mp4").write_text("1")
    speaking_directory(tmp_path / "my-qwen", "qwen2_5_vl", layers=16)
    return tmp_path


@pytest.mark.slow
def test_every_command_ends_well_and_budgets_are_shares(place, monkeypatch):
    monkeypatch.chdir(place)
    walked = [execute(words) or words[1] for words in commands(PAGE)]
    assert walked == ["label", *["cache-features"] * 2, *["search"] * 2, "evaluate", "generate", "generate"]
    artifact = read_artifact(place / "qwen-run" / "artifact")
    assert artifact.budgets == ("33%", "50%")
    assert artifact.manifest.shape.tokens_per_image is None
    low, high = artifact.entry("33%").token_range
    assert low < high
    assert {*artifact.entry("33%").results} >= {"unpruned", "default", "random", "calibrated"}
    pictures = {row.get("image") or row["video"] for row in map(json.loads, (place / "samples.jsonl").open())}
    assert len(pictures) == len(SIZES) + 1
