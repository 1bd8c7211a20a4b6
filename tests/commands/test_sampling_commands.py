"""`sample`: drawing from a labelled table."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from speaking_models import write_picture

from clasp_calib.calib.dataset import calibration_samples
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import CLASSES


@pytest.fixture
def labels(tmp_path):
    rows = [
        {"id": f"{i}", "image": f"pictures/{i // 2}.png", "question": "?", "class": label, "answers": ["a"]}
        for i, label in enumerate(["counting"] * 40 + ["text"] * 6)
    ]
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    for number in range(23):
        write_picture(tmp_path / "data" / "pictures" / f"{number}.png", number, 8)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "labels.parquet")
    return tmp_path / "data" / "labels.parquet"


def test_a_draw_can_be_searched_and_says_what_is_short(command, labels, tmp_path):
    words = ["sample", labels, "--run", tmp_path / "run", "--per-class", 8]
    found = command(*words, "--json").json
    assert found["counts"]["counting"] == {"calibration": 8, "selection": 4, "test": 4}
    assert found["short"]["text"]["calibration"] == 8 - found["counts"]["text"]["calibration"]
    drawn = calibration_samples(load_samples(tmp_path / "run" / "sample.parquet"), CLASSES)
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


def test_copies_are_drawn_into_one_split(command, labels, tmp_path):
    pictures = tmp_path / "data" / "pictures"
    for number in range(0, 22, 2):
        (pictures / f"{number + 1}.png").write_bytes((pictures / f"{number}.png").read_bytes())
    command("sample", labels, "--run", tmp_path / "run", "--per-class", 8)
    sides = {}
    for sample in load_samples(tmp_path / "run" / "sample.parquet"):
        assert sides.setdefault(sample.picture.read_bytes(), sample.split) == sample.split
    assert len(sides) > 3


def test_pictures_that_are_not_there_are_named(command, labels, tmp_path):
    (tmp_path / "data" / "pictures" / "3.png").unlink()
    ended = command("sample", labels, "--run", tmp_path / "run")
    assert ended.code == 2
    assert "3.png: No such file" in ended.err


def test_a_column_may_give_the_classes(command, labels, tmp_path):
    table = pq.read_table(labels).rename_columns({"class": "kind"})
    pq.write_table(table, labels)
    found = command(
        "sample", labels, "--run", tmp_path / "run", "--per-class", 8, "--class-from", "kind", "--json"
    ).json
    assert found["counts"]["counting"] == {"calibration": 8, "selection": 4, "test": 4}
    assert RunDirectory(tmp_path / "run").configuration()["sample"]["class_from"] == "kind"
    drawn = pq.read_table(tmp_path / "run" / "sample.parquet")
    assert drawn.column_names == [*table.column_names, "split"]
    ended = command("sample", labels, "--run", tmp_path / "run", "--default-class", "rest")
    assert "--default-class is used with --class-from only" in ended.err


def test_unlabelled_tables_are_refused(command, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "?"}\n')
    ended = command("sample", tmp_path / "q.jsonl", "--run", tmp_path / "run")
    assert ended.code == 2
    assert "run `clasp-calib label` first" in ended.err
