"""The whole path on a tiny model: each command, with and without ``--json``, given once and given again."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.common.samples import CLASSES
from clasp_calib.report.overlay import MARGIN, PANEL


def test_label_writes_one_row_for_a_row(finished, command, tmp_path):
    said = finished.said["label"]
    assert "30 questions" in said
    assert "agreement with the gold classes in the table: " in said
    assert (
        f"written to {finished.run / 'labels.parquet'}; next: clasp-calib cache-features --run {finished.run}" in said
    )
    result = command("label", finished.samples, "--run", tmp_path, "--out", tmp_path / "x" / "l.parquet", "--json").json
    assert result["rows"] == 30 == sum(result["classes"].values()) == sum(result["sources"].values())
    assert list(result["classes"]) == list(CLASSES)
    assert 0 <= result["agreement"] <= 1
    rows = pq.read_table(tmp_path / "x" / "l.parquet").to_pylist()
    given = [json.loads(line) for line in finished.samples.open()]
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    for row, before in zip(rows, given, strict=True):
        assert os.path.samefile(tmp_path / "x" / row["image"], finished.samples.parent / before["image"])
    assert sum(row["class"] == row["gold_class"] for row in rows) / 30 == result["agreement"]


def test_label_finds_pictures_again_through_a_linked_run_directory(finished, command, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert command("label", finished.samples, "--run", tmp_path / "link").code == 0
    row = pq.read_table(tmp_path / "link" / "labels.parquet").to_pylist()[0]
    assert (tmp_path / "link" / row["image"]).is_file()


def test_label_maps_columns_and_reads_csv(command, tmp_path):
    (tmp_path / "q.csv").write_text("prompt,answers\nHow many cups?,two|three\nWhat color is it?,\n")
    ended = command("label", tmp_path / "q.csv", "--run", tmp_path / "run", "--column", "question=prompt")
    assert ended.code == 0
    rows = pq.read_table(tmp_path / "run" / "labels.parquet").to_pylist()
    assert [(r["question"], r["class"], r["answers"]) for r in rows] == [
        ("How many cups?", "counting", ["two", "three"]),
        ("What color is it?", "attribute", []),
    ]
    assert (
        command("label", tmp_path / "q.csv", "--run", tmp_path, "--column", "question=prompt", "--limit", 1).code == 0
    )
    assert pq.read_table(tmp_path / "labels.parquet").num_rows == 1


def test_cache_features_skips_what_is_there(finished, copied, command):
    assert (
        "10 different pictures of 30 samples: 10 encoded, 0 were there; layers 1, 2, 3"
        in finished.said["cache-features"]
    )
    result = command("cache-features", *copied.words, "--json").json
    assert (result["pictures"], result["unique"], result["encoded"], result["skipped"]) == (30, 10, 0, 10)
    assert result["out"] == str(copied.run / "cache")
    more = command("cache-features", *copied.words, "--json", "--layers", "0,3,2", "--verify").json
    assert (more["encoded"], more["layers"]) == (10, [0, 2, 3])
    assert "0 encoded, 10 were there" in command("cache-features", *copied.words).out


def test_search_writes_an_artifact_of_all_budgets(finished):
    said = finished.said["search"]
    assert "budget 50%: 10 / 6 / 5 tokens, 8.0 a layer on average" in said
    assert "gain: of the choice over the default in points" in said
    assert "budget 6: 7 / 4 / 3 tokens, 6.0 a layer on average" in said
    assert f"artifact in {finished.run / 'artifact'}; next: clasp-calib evaluate --run {finished.run}\n" in said
    assert said.count("how sure") == said.count("each class has the candidate of the highest posterior mean") == 2
    assert "(pooled, all classes together, with what was measured at 6)" in said
    artifact = read_artifact(finished.run / "artifact")
    # Those of fewer tokens come first, and tell of the others.
    assert artifact.budgets == ("6", "50%")
    assert [artifact.entry(name).decision.budgets for name in artifact.budgets] == [(), ("6",)]


def test_the_artifact_has_a_verdict_of_every_class_that_has_samples(finished):
    artifact = read_artifact(finished.run / "artifact")
    for budget in artifact.budgets:
        for choice in artifact.entry(budget).choices.values():
            assert (choice.verdict is None) == (choice.posterior is None) == (choice.evaluations == 0)
            assert choice.evaluations == 0 or choice.samples == 7
            assert choice.evaluations <= choice.candidates * (choice.samples or 0)


def test_a_second_search_measures_nothing(finished, copied, command, monkeypatch):
    from clasp_calib.calib.scoring.evaluator import Evaluator

    def scores(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(Evaluator, "scores", scores)
    space = ["--space", copied.run / "small.yaml"]
    events = [
        json.loads(line)
        for line in command("search", *copied.words, *space, "--budget", "50%", "--json").out.splitlines()
    ]
    assert [event["class"] for event in events if event["event"] == "chosen"] == ["attribute", "spatial", "counting"]
    assert all(event["recorded"] for event in events if event["event"] == "begin")
    result = events[-1]
    assert result["event"] == "result"
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")
    assert [entry["name"] for entry in result["budgets"]] == ["6", "50%"]
    assert result["id"] == read_artifact(copied.run / "artifact").manifest.id
    before = {entry.name: entry.choices for entry in read_artifact(finished.run / "artifact").manifest.budgets}
    assert {entry.name: entry.choices for entry in read_artifact(copied.run / "artifact").manifest.budgets} == before


def test_a_plan_costs_nothing_and_keeps_what_was_edited(copied, command):
    words = ["search", *copied.words, "--budget", "50%", "--plan"]
    shutil.rmtree(copied.run / "study")
    result = command(*words, "--json").json
    (plan,) = result["plans"]
    assert (plan["budget"], plan["stage counts"], plan["classes"]) == ("50%", [10, 6, 5], 3)
    assert 0 < plan["evaluations at most"] < 1000
    assert plan["samples"]["counting"] == {"search": 7, "test": 3}
    (few,) = [told for told in plan["cannot be decided"] if told.startswith("fewer than 8 pictures")]
    assert "counting (7)" in few
    path = copied.run / "space.yaml"
    assert result["space"] == str(path)
    assert path.is_file()
    assert not (copied.run / "study").exists()
    path.write_text(path.read_text().replace("- 0.25\n", "- 0.3\n"))
    edited = path.read_bytes()
    assert f"the space in {path} stays as it is" in command(*words).out
    assert command(*words, "--space", path).code == 0
    assert path.read_bytes() == edited
    path.unlink()
    assert f"the space in {path} is new: edit it and give it back with --space" in command(*words).out


def test_a_search_says_which_metrics_have_to_generate(copied, command):
    said = "these metrics need generated answers, which take longer than the one forward of exact: anls: 30 samples"
    words = ["search", *copied.words, "--budget", "50%", "--plan"]
    assert "generated answers" not in command(*words).err
    table = pq.read_table(copied.run / "labels.parquet")
    metrics = pa.array(["anls"] * len(table))
    if "metric" in table.column_names:
        table = table.drop_columns(["metric"])
    pq.write_table(table.append_column("metric", metrics), copied.run / "anls.parquet")
    words += ["--samples", copied.run / "anls.parquet"]
    assert said in " ".join(command(*words).err.split())
    assert command(*words, "--json").json["plans"]


def test_evaluate_reports_all_settings_and_records_the_scores(finished, copied, command):
    assert "seconds an answer" in finished.said["evaluate"]
    result = command("evaluate", *copied.words, "--timed", "0", "--json", "--budget", "6").json
    (found,) = result["budgets"]
    assert (found["budget"], found["counts"], found["seconds"]) == ("6", [7, 4, 3], {})
    assert list(found["scores"]) == ["unpruned", "default", "random", "calibrated", "paper rho", "global"]
    for of in [*found["scores"].values(), found["gain"]]:
        assert set(of) == {"attribute", "counting", "spatial", "macro"}
        assert all(
            i["low"] <= i["mean"] <= i["high"] and i["samples"] == (9 if c == "macro" else 3) for c, i in of.items()
        )
    gain = {c: found["scores"]["calibrated"][c]["mean"] - found["scores"]["default"][c]["mean"] for c in found["gain"]}
    assert gain == pytest.approx({c: i["mean"] for c, i in found["gain"].items()})
    entry = read_artifact(copied.run / "artifact").entry("6")
    assert {s: {c: i.mean for c, i in of.items()} for s, of in entry.results.items()} == {
        s: {c: i["mean"] for c, i in of.items()} for s, of in found["scores"].items()
    }
    report = (copied.run / "report" / "evaluation-test.md").read_text()
    assert result["report"] == str(copied.run / "report" / "evaluation-test.md")
    assert (
        "| class | n | unpruned | default | random | calibrated | paper rho | global | calibrated - default |" in report
    )
    assert (copied.run / "report" / "evaluation-test.png").read_bytes().startswith(b"\x89PNG")


def test_evaluating_again_gives_the_same_artifact(finished, copied, command):
    before = read_artifact(copied.run / "artifact").manifest
    assert command("evaluate", *copied.words, "--timed", "0").code == 0
    assert read_artifact(copied.run / "artifact").manifest == before
    assert command("evaluate", *copied.words, "--timed", "0", "--split", "selection", "--limit", "25").code == 0
    assert read_artifact(copied.run / "artifact").manifest == before
    assert (copied.run / "report" / "evaluation-selection.md").is_file()


def test_artifact_show_prints_what_is_there(finished, command):
    said = finished.said["artifact show"]
    assert "for " + str(finished.model) in said
    assert "budget 50%: 10 / 6 / 5 tokens entering layers 2 / 6 / 15, 8.0 a layer on average" in said
    assert "1.00 x 3" in said
    for words in (["--run", finished.run], [finished.run / "artifact"]):
        result = command("artifact", "show", *words, "--json").json
        artifact = read_artifact(finished.run / "artifact")
        assert result["id"] == artifact.manifest.id
        assert result["numbers"]["6"]["counting"] == {
            "alpha": list(artifact.alpha("6", "counting")),
            "rho": artifact.rho("6", "counting"),
            "seeding": "redundancy",
        }


def test_generate_answers_and_compares(finished, command):
    said = finished.said["generate"].splitlines()
    assert "class counting, budget 50%: 10 / 6 / 5 visual tokens kept at the stages" in said[1]
    assert said[2].startswith("without pruning: ")
    ask = [
        "generate",
        *finished.words,
        "--image",
        finished.picture,
        "--prompt",
        "What is {this}?",
        "--max-new-tokens",
        4,
    ]
    result = command(*ask, "--budget", "6", "--class", "spatial", "--compare", "--json").json
    assert (result["class"], result["budget"], result["kept"]) == ("spatial", "6", [7, 4, 3])
    assert result["seconds"] > 0
    assert set(result["unpruned"]) == {"text", "seconds"}
    assert result["artifact"] == str(finished.run / "artifact")
    alone = command(*ask, "--budget", "6", "--class", "spatial", "--json").json
    assert alone["answer"] == result["answer"]
    assert "unpruned" not in alone


def test_generate_draws_what_each_stage_kept(finished, command, tmp_path):
    """Three panels of 4 x 4 tokens: as many blue and red cells as the command says."""
    path = tmp_path / "new" / "kept.png"
    Image.new("RGB", (56, 56), "grey").save(tmp_path / "grey.png")
    ask = ["generate", *finished.words, "--image", tmp_path / "grey.png", "--prompt", "How many?", "--overlay", path]
    said = command(*ask, "--budget", "50%").out
    assert f"kept tokens drawn in {path}" in said
    with Image.open(path) as sheet:
        cell, step = PANEL // 4, PANEL + MARGIN
        counted = []
        for panel in range(3):
            places = [(MARGIN + panel * step + x * cell + 3, MARGIN + y * cell + 3) for y in range(4) for x in range(4)]
            tints = [sheet.getpixel(place) for place in places]
            counted.append(sum(abs(red - blue) > 40 for red, _, blue in tints))
    assert counted == [10, 6, 5]
    assert command(*ask, "--json").json["overlay"] == str(path)
    assert "cannot write the overlay" in command(*ask[:-1], tmp_path / "kept.nothing").err


def test_generate_prunes_without_an_artifact(finished, command, tmp_path):
    ask = ["generate", "--run", tmp_path, "--model", finished.model, "--image", finished.picture, "--prompt", "What?"]
    ended = command(*ask, "--budget", "50%")
    assert (ended.code, ended.err) == (0, "")
    assert "no artifact (own layer, rho 1), budget 50%: 10 / 6 / 5 visual tokens" in ended.out
    assert command(*ask, "--budget", "100%", "--json").json["kept"] == []
    ended = command(*ask, "--budget", "100%", "--overlay", tmp_path / "kept.png")
    assert (ended.code, "prunes nothing" in ended.err) == (2, True)
    assert command(*ask).code == 2


def test_a_forgotten_model_is_said(finished, command, tmp_path):
    ask = ["generate", "--run", tmp_path, "--image", finished.picture, "--prompt", "What?", "--budget", "50%"]
    said = "no --model was given: this works on the small embedded model (reference)"
    assert said in command(*ask).err
    tmp_path.joinpath("run").mkdir()
    ask[2] = tmp_path / "run"
    assert said not in command(*ask, "--model", "reference").err
    assert said not in command(*ask).err


def test_the_run_directory_keeps_what_was_asked(finished):
    config = json.loads((finished.run / "config.json").read_text())
    assert list(config) == ["cache-features", "evaluate", "label", "model", "search"]
    assert config["model"] == {"name": str(finished.model), "source": str(finished.model)}
    assert config["search"]["budgets"] == ["50%", "6"]
    events = [json.loads(line) for line in (finished.run / "log.jsonl").open()]
    assert [event["command"] for event in events][-4:] == ["label", "cache-features", "search", "evaluate"]
    assert all(event["time"] for event in events)


def test_the_stages_may_start_elsewhere(copied, command):
    words = ["search", *copied.words, "--budget", "50%", "--plan", "--starts", "1,3,8", "--json"]
    (plan,) = command(*words).json["plans"]
    (usual,) = command(*words[:-3], "--json").json["plans"]
    assert plan["stage counts"] != usual["stage counts"]
    assert abs(plan["mean tokens"] - 8) <= 0.5
