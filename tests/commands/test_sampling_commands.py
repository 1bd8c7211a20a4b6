"""`sample`, and `label` with a dataset, with whatever backend is there, and with its report."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_llm_server import GOOD, Fake, running
from PIL import Image

from clasp_calib.calib.dataset import load_samples
from clasp_calib.common.samples import CLASSES, read_table


@pytest.fixture
def labels(tmp_path):
    rows = [
        {"id": f"{i}", "image": f"pictures/{i // 2}.png", "question": "?", "class": label, "answers": ["a"]}
        for i, label in enumerate(["counting"] * 40 + ["text"] * 6)
    ]
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    for number in range(23):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "pictures" / f"{number}.png")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "labels.parquet")
    return tmp_path / "data" / "labels.parquet"


def test_a_draw_can_be_searched_and_says_what_is_short(command, labels, tmp_path):
    words = ["sample", labels, "--run", tmp_path / "run", "--per-class", 8]
    found = command(*words, "--json").json
    assert found["counts"]["counting"] == {"calibration": 8, "selection": 4, "test": 4}
    assert found["short"]["text"]["calibration"] == 8 - found["counts"]["text"]["calibration"]
    drawn = load_samples(tmp_path / "run" / "sample.parquet", CLASSES)
    assert len(drawn) == found["rows"]
    by_picture = {}
    for sample in drawn:
        assert by_picture.setdefault(sample.image, sample.split) == sample.split
    said = command(*words).out
    assert "short: text lacks" in said
    assert f"{found['rows']} of 46 samples" in said


def test_the_same_seed_draws_the_same_bytes(command, labels, tmp_path):
    for run in ("a", "b"):
        command("sample", labels, "--run", tmp_path / run, "--per-class", 3, "--natural")
    assert (tmp_path / "a" / "sample.parquet").read_bytes() == (tmp_path / "b" / "sample.parquet").read_bytes()


def test_unlabelled_tables_are_refused(command, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "?"}\n')
    ended = command("sample", tmp_path / "q.jsonl", "--run", tmp_path / "run")
    assert ended.code == 2
    assert "run `clasp-calib label` first" in ended.err


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
    table = read_table(tmp_path / "run" / "labels.parquet")
    assert table["class"].to_pylist() == ["counting", "text"]
    for image in table["image"].to_pylist():
        assert Image.open(tmp_path / "run" / image).size == (8, 8)


def test_a_file_has_no_splits(command, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "?"}\n')
    ended = command("label", tmp_path / "q.jsonl", "--run", tmp_path / "run", "--dataset-split", "test")
    assert ended.code == 2
    assert "--dataset-split is for datasets" in ended.err


def test_auto_takes_what_is_there_and_says_what_it_took(command, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "How many?"}\n')
    words = ["label", tmp_path / "q.jsonl", "--run", tmp_path / "run", "--backend", "auto"]
    with running(Fake(lambda question, temperature: GOOD)) as fake:
        assert f"backend server: a server answers at {fake.url}" in command(*words, "--base-url", fake.url).out
        assert fake.asked.total() == 1
    ended = command(*words, "--base-url", "http://127.0.0.1:9/v1")
    assert ended.code == 0
    assert "backend keywords: no OpenAI-compatible server answers at http://127.0.0.1:9/v1" in ended.out
    assert command(*words, "--json").json["backend"] == "keywords"


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
