"""From a published file to labels, samples and cached features, without a table of one's own in between."""

import csv
import json

import pytest
from PIL import Image
from readers.published import base64_of, json_lines, picture_at
from speaking_models import speaking_llava_directory

from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.labelers import load_scheme

COLOURS = ["red", "#f0000f", "#80000f", "#40000f", "#20000f", "#10000f", "#60000f", "#50000f"]
KINDS = ["colour", "count"]


def vlmeval(home):
    path = home / "mine.tsv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "A", "B", "answer", "category"])
        for number, colour in enumerate(COLOURS):
            row = [number, base64_of(colour), "Which one is correct?", "above the table", "3 dogs", "B"]
            writer.writerow([*row, KINDS[number % 2]])
    return path


def llava(home):
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?\nAnswer the question using a single word or phrase."},
        {"from": "gpt", "value": "Pillow."},
    ]
    rows = [
        {"image": f"{number}.png", "conversations": turns, "category": KINDS[number % 2]}
        for number in range(len(COLOURS))
    ]
    (home / "mine.json").write_text(json.dumps(rows))
    return home / "mine.json"


def pope(home):
    row = {"text": "Is there a dog in the image?", "label": "yes"}
    rows = [
        {"question_id": number, "image": f"{number}.png", **row, "category": KINDS[number % 2]}
        for number in range(len(COLOURS))
    ]
    return json_lines(home / "mine.jsonl", rows)


def hf(home):
    datasets = pytest.importorskip("datasets")
    rows = [
        {"question": "What is it?", "image": Image.open(home / f"{number}.png"), "category": KINDS[number % 2]}
        for number in range(len(COLOURS))
    ]
    datasets.Dataset.from_list(rows).save_to_disk(home / "saved")
    return home / "saved"


@pytest.fixture
def home(tmp_path):
    for number, colour in enumerate(COLOURS):
        picture_at(tmp_path / f"{number}.png", colour)
    return tmp_path


@pytest.mark.parametrize("written", [vlmeval, llava, pope, hf], ids=lambda one: one.__name__)
def test_sample_draws_from_each_by_a_column_of_the_format(command, home, written):
    source = f"{written.__name__}:{written(home)}"
    words = ["--class-from", "category", "--per-class", "2", "--run", home / "run", "--json"]
    ended = command("sample", source, *words)
    assert ended.code == 0, ended.err
    assert ended.json["counts"] == {kind: {"calibration": 2, "selection": 1, "test": 1} for kind in KINDS}
    drawn = load_samples(home / "run" / "sample.parquet")
    assert sorted({one.split for one in drawn}) == ["calibration", "selection", "test"]
    assert all(path.is_file() for one in drawn for path in one.media)
    inside = written in (vlmeval, hf)
    assert len(list((home / "run").glob("pictures/*.png"))) == (len(COLOURS) if inside else 0)


@pytest.mark.parametrize("written", [vlmeval, llava, pope], ids=lambda one: one.__name__)
def test_options_and_answer_formats_do_not_change_the_class(command, home, written):
    ended = command("label", written(home), "--run", home / "run", "--json")
    assert ended.code == 0, ended.err
    table = load_samples(home / "run" / "labels.parquet").table
    scheme = load_scheme(None, None)
    bare = table["bare_question"].to_pylist()
    assert all(question != asked for question, asked in zip(table["question"].to_pylist(), bare, strict=True))
    rules = [rule.id if (rule := scheme.rules.match(question)) else None for question in bare]
    assert table["rule"].to_pylist() == rules
    if written is vlmeval:  # So the test can fail.
        assert {scheme.rules.match(q) for q in table["question"].to_pylist()} != {scheme.rules.match(q) for q in bare}


def test_features_are_cached_and_the_run_remembers_the_source(command, home, monkeypatch):
    model = speaking_llava_directory(home / "model", decoder_layers=17)
    monkeypatch.chdir(vlmeval(home).parent)
    words = ["--run", home / "run", "--model", model, "--json"]
    first = command("cache-features", "--samples", "vlmeval:mine.tsv", *words)
    assert first.code == 0, first.err
    assert len(list((home / "run").glob("pictures/*.png"))) == len(COLOURS)
    monkeypatch.chdir("/")
    again = command("cache-features", *words)
    assert again.code == 0, again.err
    assert again.json["encoded"] == 0
