"""The whole path by the real commands on a tiny model of every architecture that speaks."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from speaking_architectures import WALKED, own_processors, speaking_directory, write_questions  # noqa: F401

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import sample_scores

PARTS = {"calibration": 4, "selection": 2, "test": 3}


@dataclass(frozen=True)
class Walk:
    """A model that speaks, questions, and where a run goes."""

    model: Path
    samples: Path
    run: Path

    @property
    def words(self) -> list[str]:
        return ["--run", str(self.run), "--model", str(self.model), "--samples", str(self.samples)]

    def asked(self, row: dict) -> list[str]:
        """The options of ``generate`` for a row of the samples."""
        kind = "video" if row.get("video") else "image"
        media = str(self.samples.parent / row[kind])
        return [f"--{kind}", media, "--prompt", row["question"], "--class", row["class"], "--max-new-tokens", "16"]


@pytest.fixture
def walk(tmp_path, own_processors):  # noqa: F811
    def made(name: str) -> Walk:
        return Walk(
            speaking_directory(tmp_path / "model", name),
            write_questions(tmp_path / "data", name, PARTS),
            tmp_path / "run",
        )

    return made


@pytest.mark.parametrize("name", WALKED)
def test_from_the_cache_to_the_very_answers_that_evaluate_counted(walk, command, name):
    here = walk(name)
    budget = "40%"
    path = (
        ["cache-features", *here.words],
        ["search", *here.words, "--starts", "1,2,4", "--budget", budget],
        ["evaluate", *here.words, "--timed", "0"],
        ["compare", *here.words, "--timed", "0", "--methods", "random,pyramiddrop"],
        ["ablate", "parts", *here.words],
    )
    ended = [command(*words) for words in path]
    assert [one.code for one in ended] == [0] * 5, [one.err for one in ended]
    artifact = read_artifact(here.run / "artifact")
    entry = artifact.entry(budget)
    assert (
        (entry.counts is None) == (artifact.manifest.shape.tokens_per_image is None) == (entry.token_range is not None)
    )
    assert f"{entry.a_layer} a layer on average" in ended[1].out
    rows = {row["id"]: row for row in map(json.loads, here.samples.open())}
    scores = [score for score in sample_scores(artifact) if score.setting == "calibrated"]
    said = {}
    for score in scores:
        row = rows[score.sample]
        asked = command("generate", "--run", here.run, "--model", here.model, *here.asked(row), "--json")
        said[score.sample] = asked.json["answer"]
        assert float(said[score.sample] in row["answers"]) == score.score
    assert len(said) == 6
    assert len(set(said.values())) > 1


def test_a_budget_in_tokens_is_refused_with_percentages_that_come_near(walk, command):
    here = walk("qwen2_5_vl")
    for budget, told in (
        ("5", "11.8 (8 to 16) in the 9 counted here. So a budget is a percentage of each picture's own: for 5 tokens"),
        ("5", "--budget 42% is 4.9 (3 to 7) and --budget 43% is 5.1 (3 to 7) a layer"),
        ("1", "1 tokens are 8.49% of them, and --budget 13% is the smallest that prunes"),
        ("20", "20 tokens are 170% of them, and --budget 99% is the largest that prunes"),
    ):
        ended = command("search", *here.words, "--starts", "1,2,4", "--budget", budget)
        assert ended.code == 2
        assert told in " ".join(ended.err.split())
    assert not (here.run / "cache").exists()
    row = json.loads(here.samples.read_text().splitlines()[0])
    asked = ["--image", here.samples.parent / row["image"], "--prompt", row["question"]]
    ended = command("generate", "--run", here.run, "--model", here.model, *asked, "--budget", "5")
    assert (ended.code, "10.0 in the 1 counted here" in " ".join(ended.err.split())) == (2, True)


def test_a_picture_too_small_for_the_budget_is_named(walk, command):
    here = walk("qwen2_5_vl")
    ended = command("search", *here.words, "--starts", "1,2,4", "--budget", "20%", "--recompute")
    assert ended.code == 2
    assert "becomes 8 visual tokens: a budget of 20%" in " ".join(ended.err.split())
