"""The pages of docs/guide/data/, executed on a few rows under the names that they give."""

import csv
import json
import tomllib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import ROOT, blocks, commands, execute
from readers.published import base64_of, encoded, picture_at

import clasp_calib as cc
from clasp_calib.common.sample_readers import prefixes

GUIDE = ROOT / "docs" / "guide"
DATA = GUIDE / "data"


def lay_out_pope(place):
    (rows,) = blocks(DATA / "pope.md", "json")
    (place / "coco_pope_random.json").write_text(rows)
    picture_at(place / "val2014" / json.loads(rows.splitlines()[0])["image"])


def lay_out_llava(place):
    (row,) = blocks(DATA / "llava.md", "json")
    (place / "llava_mix.json").write_text(f"[{row}]")
    picture_at(place / "images" / json.loads(row)["image"])


def lay_out_vlmeval(place):
    with (place / "MMBench_DEV_EN.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "A", "B", "answer"])
        writer.writerow([0, base64_of("red"), "What is it?", "a cup", "a bus", "A"])


def lay_out_hugging_face(place):
    picture = {"bytes": encoded("red"), "path": None}
    pq.write_table(pa.Table.from_pylist([{"question": "What is it?", "image": picture}]), place / "questions.parquet")


BENCHMARKS = {
    "vqav2": (
        "v2_OpenEnded_mscoco_val2014_questions.json v2_mscoco_val2014_annotations.json",
        "coco/val2014/COCO_val2014_000000262148.jpg",
    ),
    "gqa": ("val_balanced_questions.json", "gqa/images/2405722.jpg"),
    "scienceqa": ("scienceqa/problems.json scienceqa/pid_splits.json", "scienceqa/images/test/11/image.png"),
    "textvqa": ("TextVQA_0.5.1_val.json", "textvqa/train_images/003a8ae2ef43b901.jpg"),
    "docvqa": ("val_v1.0_withQT.json", "docvqa/documents/snbx0223_14.png"),
    "coco": ("captions_val2014.json", "coco/val2014/COCO_val2014_000000391895.jpg"),
}
"""Page -> the files that its JSON is of, a line each, and its picture."""


@pytest.mark.parametrize("page", BENCHMARKS)
def test_the_rows_and_the_command_of_a_page_of_a_benchmark_fit(page, tmp_path, monkeypatch):
    names, picture = BENCHMARKS[page]
    rows = [*blocks(DATA / f"{page}.md", "json")[0].splitlines(), '{"test": ["11"]}']
    picture_at(tmp_path / picture)
    for name, row in zip(names.split(), rows, strict=False):
        (tmp_path / name).write_text(row)
    monkeypatch.chdir(tmp_path)
    for words in commands(DATA / f"{page}.md"):
        execute(words)
    (labelled,) = cc.load_samples(tmp_path / "my-run" / "labels.parquet")
    assert labelled.picture.samefile(picture)
    prompt = blocks(DATA / f"{page}.md", "text")
    assert prompt in ([], [f"{labelled.question}\n"])


@pytest.mark.parametrize(
    ("page", "lay_out"),
    [
        ("pope", lay_out_pope),
        ("llava", lay_out_llava),
        ("vlmevalkit-tsv", lay_out_vlmeval),
        ("hugging-face", lay_out_hugging_face),
    ],
)
def test_the_command_of_a_page_runs(page, lay_out, tmp_path, monkeypatch):
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in commands(DATA / f"{page}.md"):
        execute(words)
    labelled = cc.load_samples(tmp_path / "my-run" / "labels.parquet")
    assert all(path.is_file() for sample in labelled for path in sample.media)
    if page == "llava":
        assert [sample.id for sample in labelled] == ["0.1", "0.2"]


def test_the_overview_lists_every_prefix():
    text = (GUIDE / "data.md").read_text(encoding="utf-8")
    assert [name for name in prefixes() if f"`{name}:`" not in text] == []


def test_the_reader_of_the_overview_reads(tmp_path):
    code, entry = blocks(GUIDE / "data.md", "python")[-1], blocks(GUIDE / "data.md", "toml")[0]
    names: dict = {}
    exec(code, names)
    (point,) = tomllib.loads(entry)["project"]["entry-points"]["clasp_calib.readers"].values()
    path = tmp_path / "mine.notes"
    path.write_text("a.png | What? | It.\n")
    from clasp_calib.common.sample_readers import Beginning, SampleSource

    reader = names[point.split(":")[1]]()
    assert reader.claims(Beginning(path))
    assert list(reader.rows(SampleSource(str(path)))) == [
        {"id": "1", "image": "a.png", "question": "What?", "answers": ["It."]}
    ]
