"""The whole path by the real commands on a tiny model of every architecture that speaks."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from speaking_architectures import CASES, WALKED, own_processors, speaking_directory, write_questions  # noqa: F401

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import sample_scores
from tools.docs.architectures import COMMANDS

LONGEST = 16
"""Tokens of an answer, each of which is a word."""
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
        return [
            f"--{kind}",
            media,
            "--prompt",
            row["question"],
            "--class",
            row["class"],
            "--max-new-tokens",
            str(LONGEST),
        ]


@pytest.fixture
def walk(tmp_path, own_processors):  # noqa: F811
    def made(name: str) -> Walk:
        return Walk(
            speaking_directory(tmp_path / "model", name),
            write_questions(tmp_path / "data", name, PARTS),
            tmp_path / "run",
        )

    return made


@pytest.mark.shows(*(f"`{name}`" for name in COMMANDS))
@pytest.mark.slow
@pytest.mark.parametrize("name", WALKED)
def test_from_the_cache_to_the_very_answers_that_evaluate_counted(walk, command, name):
    here = walk(name)
    budget = "40%"
    layered = CASES[name].layered
    search = ["search", *here.words, *(["--starts", "1,2,4"] if layered else []), "--budget", budget]
    ended = [command(*words) for words in (["cache-features", *here.words], search)]
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    entry = read_artifact(here.run / "artifact").entry(budget)
    fixed = read_artifact(here.run / "artifact").manifest.shape.tokens_per_image is not None
    assert (entry.counts is not None, entry.token_range is None) == (fixed, fixed)
    assert f"{entry.a_layer} a layer on average" in ended[1].out

    # Two of three test questions get the answer that the command gives as their accepted one, if it came to an end.
    rows = [json.loads(line) for line in here.samples.open()]
    expected, answers = {}, set()
    for number, row in enumerate(row for row in rows if row["split"] == "test"):
        asked = command("generate", "--run", here.run, "--model", here.model, *here.asked(row), "--json")
        said = asked.json["answer"]
        right = bool(number % 3 and said and len(said.split()) < LONGEST)
        row["answers"] = [said if right else f"{said} and more"]
        expected[row["id"]] = float(right)
        answers.add(said)
    assert len(answers) > 2
    assert len(set(expected.values())) == 2
    here.samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    methods = "random,pyramiddrop" if layered else "random"
    path = (
        ["evaluate", *here.words, "--timed", "0"],
        ["compare", *here.words, "--timed", "0", "--methods", methods, "--json"],
        ["ablate", "parts", *here.words],
    )
    ended = [command(*words) for words in path]
    assert [one.code for one in ended] == [0] * 3, [one.err for one in ended]
    scores = sample_scores(read_artifact(here.run / "artifact"))
    counted = {score.sample: score.score for score in scores if score.setting == "calibrated"}
    assert counted == expected
    again = command("evaluate", *here.words, "--timed", "0", "--recompute")
    assert (again.code, "the same numbers as the artifact recorded before" in again.out) == (0, True), again.err
    (compared,) = ended[1].json["budgets"]
    (ours,) = [method for method in compared["methods"] if method["method"] == "calibrated"]
    assert ours["scores"]["macro"]["mean"] == sum(counted.values()) / len(counted)


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
    for profile, told in (("layered", "is the smallest"), ("input", "in the mean --budget 10% is 1.0 a layer")):
        words = ["generate", "--run", here.run, "--model", here.model, *asked, "--budget", "1", "--profile", profile]
        assert told in " ".join(command(*words).err.split())


def test_a_picture_too_small_for_the_budget_is_named(walk, command):
    here = walk("qwen2_5_vl")
    ended = command("search", *here.words, "--starts", "1,2,4", "--budget", "20%", "--recompute")
    assert ended.code == 2
    assert "becomes 8 visual tokens: a budget of 20%" in " ".join(ended.err.split())
