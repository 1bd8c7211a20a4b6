"""`train-router` and `route`."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.router_labeling.abstention import WRONG_COST
from clasp_calib.router_labeling.router_file import load_router, write_router

THINGS = ("dog", "cat", "car", "boat", "tree", "lamp", "shoe", "bird", "plane", "chair")


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """30 questions of three classes; ten are gold, and one could not be placed."""
    rows = [
        {"id": f"{label}-{thing}", "question": f"{words} {thing}?", "class": label, "source": source, "labeler": "{}"}
        for label, words, source in (
            ("counting", "how many of the", "llm"),
            ("attribute", "what colour has the", "gold"),
            ("default", "please translate this into", "llm"),
        )
        for thing in THINGS
    ]
    rows.append({"id": "x", "question": "?", "class": "default", "source": "default", "labeler": "{}"})
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def trained(command, labels, tmp_path):
    ended = command("train-router", labels, "--run", tmp_path / "run", "--json")
    assert ended.code == 0, ended.err
    return tmp_path / "run", ended.json


def test_training_reports_gold_beside_agreement_and_draws_the_trade_off(trained):
    run, found = trained
    assert (found["questions"], found["unplaced"]) == (30, 1)
    assert found["gold"]["questions"] == 10
    assert found["agreement"]["questions"] == 30
    assert found["quality"]["against"] == "gold"
    assert found["quality"]["without"] == {"accuracy": 1.0, "macro": 1.0}
    assert found["objection"] is None
    assert found["bytes"] == (run / "router.safetensors").stat().st_size < 20_000_000
    assert (run / "report" / "router.png").read_bytes().startswith(b"\x89PNG")
    router = load_router(run / "router.safetensors")
    assert (router.quality.questions, router.quality.accuracy) == (10, found["gold"]["accuracy"])
    assert router.training.rows == 30
    assert router.training.labelers == ("{}",)
    assert json.loads((run / "config.json").read_text())["train-router"]["wrong_cost"] == WRONG_COST


def test_routing_says_why(trained, command):
    run, _ = trained
    found = command("route", "How many zebras?", "--run", run, "--json").json
    assert (found["by"], found["class"], found["likeliest"]) == (
        str(run / "router.safetensors"),
        "counting",
        "counting",
    )
    assert found["confidence"] == max(found["probabilities"].values())
    assert any("many" in reason["text"] for reason in found["reasons"])
    said = command("route", "How many zebras?", "--router", run / "router.safetensors").out
    assert "class counting, confidence" in said
    assert "what spoke most for counting" in said


def test_an_abstention_is_told(command, labels, tmp_path):
    command("train-router", labels, "--run", tmp_path)
    careful = replace(load_router(tmp_path / "router.safetensors"), threshold=1.0)
    write_router(careful, tmp_path / "router.safetensors")
    said = command("route", "How many zebras?", "--run", tmp_path).out
    assert "router.safetensors abstains, since counting has" in said


def test_without_gold_accuracy_is_not_claimed_and_gold_is_not_trained_on(command, labels, tmp_path):
    table = pq.read_table(labels)
    plain = tmp_path / "plain.parquet"
    pq.write_table(table.drop_columns(["source", "labeler"]), plain)
    said = command("train-router", plain, "--run", tmp_path)
    assert "how right it is is not known" in said.out
    before = load_router(tmp_path / "router.safetensors")
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"question": "how many zebras?", "class": "counting"}\n')
    found = command("train-router", plain, "--run", tmp_path, "--gold", gold, "--json").json
    assert found["gold"]["questions"] == 1
    assert found["gold"]["likeliest"] == 1
    after = load_router(tmp_path / "router.safetensors")
    assert np.array_equal(after.weights, before.weights)
    assert after.training == before.training


def test_a_router_that_does_worse_than_the_packaged_one_is_not_written_unless_it_is_forced(command, tmp_path):
    words = ("how many {}s are there?", "what colour is the {}?", "where is the {}?")
    names = ("counting", "attribute", "spatial")
    # Labels without a pattern, from which nothing can be learnt; the classes by hand follow from the words.
    rows = [
        {"question": said.format(thing), "class": names[(i + j * j) % 3], "gold_class": names[j], "source": "llm"}
        for i, thing in enumerate(THINGS)
        for j, said in enumerate(words)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    run = tmp_path / "run"
    ended = command("train-router", tmp_path / "labels.parquet", "--run", run)
    assert ended.code == 2
    assert (
        "the packaged router, which answers where an artifact has none, 100.0% (mean over classes 100.0%)" in ended.err
    )
    assert "not written" in ended.err
    assert not (run / "router.safetensors").exists()
    forced = command("train-router", tmp_path / "labels.parquet", "--run", run, "--force")
    assert forced.code == 0, forced.err
    assert "kept by --force, though by classes given by hand, the router gets" in forced.out
    quality = load_router(run / "router.safetensors").quality
    assert (quality.against, quality.questions, quality.without.macro) == ("gold", 30, 1.0)
    assert quality.macro < 0.9


def test_labels_of_the_rules_cannot_judge_a_router(command, tmp_path):
    rows = [{"question": f"{said} {thing}s?"} for said in ("how many", "what colour are the") for thing in THINGS]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command("label", tmp_path / "samples.jsonl", "--run", tmp_path / "run").code == 0
    ended = command("train-router", "--run", tmp_path / "run")
    assert ended.code == 2
    assert "all labels are the keyword rules' own" in ended.err
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"question": "how many zebras?", "class": "counting"}) + "\n")
    assert command("train-router", "--run", tmp_path / "run", "--gold", gold).code == 0


def test_without_a_router_the_packaged_one_answers(command, tmp_path):
    found = command("route", "How many dogs are there?", "--run", tmp_path, "--json").json
    assert (found["class"], found["by"]) == ("counting", "the packaged router")
    assert "(the packaged router)" in command("route", "How many dogs are there?", "--run", tmp_path).out


def test_a_column_may_give_the_classes(command, labels, tmp_path):
    rows = pq.read_table(labels).to_pylist()[:30]
    kinds = {"counting": "How many?", "attribute": "Looks", "default": None}
    table = [{"question": row["question"], "kind": kinds[row["class"]]} for row in rows]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "own.parquet")
    words = ["train-router", tmp_path / "own.parquet", "--run", tmp_path / "run", "--class-from", "kind"]
    assert "10 of 30 samples have no 'kind'" in command(*words).err
    assert command(*words, "--default-class", "Looks").code == 0
    recorded = RunDirectory(tmp_path / "run").configuration()["train-router"]
    assert (recorded["class_from"], recorded["default_class"]) == ("kind", "Looks")
    router = load_router(tmp_path / "run" / "router.safetensors")
    assert (router.classes, router.default) == (("How many?", "Looks"), "Looks")
    pq.write_table(pa.Table.from_pylist(table[:20]), tmp_path / "own.parquet")
    assert "never abstains, as there is no default class" in command(*words).out
    assert "class How many?, confidence" in command("route", "how many of the cup?", "--run", tmp_path / "run").out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train-router", "{none}"], "no sample file"),
        (["train-router", "{unlabelled}"], "no column 'class'"),
        (["train-router", "{strange}"], "has class 'cats'; expected one of"),
        (["train-router", "{few}"], "needs 10 questions of two classes at least"),
        (["route", "?", "--router", "{none}"], "train one with `clasp-calib train-router`"),
        (["route", "?", "--router", "{few}"], "cannot be read as safetensors"),
        (["route", "?", "--router", "x", "--artifact", "y"], "--router is not used with --artifact; remove"),
    ],
)
def test_bad_inputs(command, tmp_path, words, complaint):
    files = {"unlabelled": {"question": "?"}, "strange": {"question": "?", "class": "cats"}}
    files["few"] = {"question": "?", "class": "text"}
    for name, row in files.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    names = {name: str(tmp_path / f"{name}.jsonl") for name in (*files, "none")}
    ended = command(*[word.format(**names) for word in words], "--run", tmp_path / "run")
    assert ended.code == 2
    assert complaint in ended.err
