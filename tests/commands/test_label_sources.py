"""`label` with a dataset, with whatever backend is there, and with its report."""

import json

import pytest
from fake_llm_server import GOOD, Fake, running
from PIL import Image

from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling import available


def test_a_saved_dataset_is_labelled_with_its_pictures(command, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {
        "prompt": ["How many?", "Who wrote this?"],
        "picture": [Image.new("RGB", (8, 8), c) for c in ("red", "blue")],
    }
    dataset = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    datasets.DatasetDict({"dev": dataset, "test": dataset}).save_to_disk(tmp_path / "saved")
    words = ["label", tmp_path / "saved", "--run", tmp_path / "run", "--column", "question=prompt"]
    words += ["--column", "image=picture"]
    ended = command(*words, "--json")
    assert ended.code == 2
    assert "name one of dev, test with --dataset-split" in ended.err
    ended = command(*words, "--dataset-split", "dev", "--json")
    assert ended.code == 0, ended.err
    table = load_samples(tmp_path / "run" / "labels.parquet").table
    assert table["class"].to_pylist() == ["counting", "text"]
    for image in table["image"].to_pylist():
        assert Image.open(tmp_path / "run" / image).size == (8, 8)


def test_a_file_has_no_splits(command, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "?"}\n')
    ended = command("label", tmp_path / "q.jsonl", "--run", tmp_path / "run", "--dataset-split", "test")
    assert ended.code == 2
    assert "is a file, and a dataset split ('test') is for datasets" in ended.err


def test_auto_takes_what_is_there_and_says_what_it_took(command, tmp_path, monkeypatch):
    (tmp_path / "q.jsonl").write_text('{"question": "How many?"}\n')
    words = ["label", tmp_path / "q.jsonl", "--run", tmp_path / "run", "--backend", "auto"]
    with running(Fake(lambda question, temperature: GOOD)) as fake:
        assert (
            f"labelling by ServerLabeler: a server answers at {fake.url}" in command(*words, "--base-url", fake.url).out
        )
        assert fake.asked.total() == 1
    ended = command(*words, "--base-url", "http://127.0.0.1:9/v1")
    assert ended.code == 0
    assert "labelling by EmbeddingLabeler: no OpenAI-compatible server answers at http://127.0.0.1:9/v1" in ended.out
    assert "expect of EmbeddingLabeler: " in ended.out
    monkeypatch.setattr(available, "lacking_for_embedding", lambda: "onnxruntime cannot be found")
    assert "labelling by KeywordLabeler: " in command(*words).out
    assert command(*words, "--json").json["labeler"] == "KeywordLabeler"


def test_labelling_leaves_a_report(command, tmp_path):
    questions = [
        {"question": "How many?", "gold_class": "counting"},
        {"question": "Who wrote this?", "gold_class": "text"},
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    words = ["label", tmp_path / "q.jsonl", "--run", tmp_path / "run", "--backend", "server"]
    with running(Fake(lambda question, temperature: GOOD)) as fake:
        found = command(*words, "--base-url", fake.url, "--json").json
        said = command(*words, "--base-url", fake.url).out
    assert found["agreement"] == 1
    assert found["agreement_before_overrides"] == 0.5
    assert {"before": "counting", "after": "text", "rows": 1} in found["overridden"]
    assert "counting -> text: 1" in said
    assert "before the overrides: 50.0%" in said
    assert "after overrides: 100.0% right" in (tmp_path / "run" / "report" / "labels.md").read_text()


def test_questions_of_another_language_are_told_where_rules_label(command, tmp_path):
    questions = ["图中有几只狗？", "Was steht auf dem Schild?", "How many dogs are there?"]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"question": one}) + "\n" for one in questions))
    words = ["label", tmp_path / "q.jsonl", "--run", tmp_path / "run"]
    said = command(*words)
    assert said.code == 0
    assert "note: 67% of the questions (2) do not look English, such as '图中有几只狗？'; what labelled" in said.err
    assert "--backend server or vllm" in said.err
    assert "67% of the questions (2) do not look English" in said.out
    found = command(*words, "--json").json
    assert found["not_english"] == {"questions": 2, "share": 2 / 3, "example": questions[0]}
    assert "do not look English" in (tmp_path / "run" / "report" / "labels.md").read_text()
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": questions[2]}) + "\n")
    said = command(*words)
    assert "look English" not in said.err + said.out
