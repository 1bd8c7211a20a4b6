"""The sample table: the same rows from every format, and what passes through."""

import csv
import json

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from clasp_calib.api.labelling import label
from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.sample_table import write_table

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="|", exclude_categories=("Cc", "Cs")), min_size=1)
# White space around an answer of a CSV file is none of it, and brackets around it are a list's.
ANSWERS = st.lists(
    WORDS.map(str.strip).filter(lambda text: text and text[0] not in "[{(" and text != "nan"), max_size=3
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "question": WORDS.filter(str.strip),
            "answers": ANSWERS,
            "image": st.none() | WORDS,
            "split": st.none() | st.sampled_from(["calibration", "selection", "test"]),
            "note": st.none() | WORDS,
        }
    ),
    min_size=1,
    max_size=5,
)


def written(folder, rows, suffix):
    path = folder / f"samples{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    elif suffix == ".parquet":
        write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "answers": "|".join(row["answers"])} for row in rows)
    return path


@given(ROWS)
def test_every_format_gives_the_same_samples(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"id": f"row {number}", **row} for number, row in enumerate(rows)]
    of = {}
    for suffix in (".jsonl", ".parquet", ".csv"):
        samples = load_samples(written(folder, rows, suffix))
        of[suffix] = list(samples)
        assert samples.table["note"].to_pylist() == [row["note"] for row in rows]
    assert of[".jsonl"] == of[".parquet"] == of[".csv"]
    for sample, row in zip(of[".csv"], rows, strict=True):
        assert (sample.id, sample.question, list(sample.answers)) == (row["id"], row["question"], row["answers"])
        assert sample.image == (folder / row["image"] if row["image"] else None)
        assert sample.split == row["split"]


def test_rows_without_ids_are_numbered(tmp_path):
    table = load_samples(written(tmp_path, [{"question": "a"}, {"question": "b"}], ".jsonl")).table
    assert table["id"].to_pylist() == ["0", "1"]
    table = load_samples(written(tmp_path, [{"question": "a", "id": 7}], ".jsonl")).table
    assert table["id"].to_pylist() == ["7"]


def test_columns_are_mapped_and_rows_are_limited(tmp_path):
    path = written(tmp_path, [{"q": "a", "question": "no", "key": i} for i in range(3)], ".jsonl")
    table = load_samples(path, columns={"question": "q", "id": "key"}, limit=2).table
    assert table.to_pylist() == [{"question": "a", "id": "0"}, {"question": "a", "id": "1"}]
    with pytest.raises(InputError, match=r"has no column 'x' \(it has q, question, key\); give one of these"):
        load_samples(path, columns={"question": "x"})


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "t.parquet"
    write_table(pa.table({"a": [1]}), path)

    def fail(writer, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clasp_calib.common.sample_table.pq.ParquetWriter.write_table", fail)
    with pytest.raises(InputError, match=r"cannot write .*t\.parquet .*No space left.*; give another place"):
        write_table(pa.table({"a": [2]}), path)
    monkeypatch.undo()
    assert pa.parquet.read_table(path).to_pylist() == [{"a": 1}]


def test_a_byte_order_mark_and_odd_line_ends_are_no_content(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes("\ufeffid,question\r\na,What?\r\n".encode())
    assert [s.id for s in load_samples(table)] == ["a"]
    lines = tmp_path / "lines.jsonl"
    lines.write_text('\ufeff{"id": "a", "question": "one\u2028two?"}\n', encoding="utf-8")
    assert [s.question for s in load_samples(lines)] == ["one\u2028two?"]


def test_a_csv_row_with_too_many_fields_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,question\na,hi, there?\n")
    with pytest.raises(InputError, match="more fields than the header; put texts with commas in quotes"):
        load_samples(path)


def test_a_null_answer_is_no_answer(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"id": "a", "question": "?", "answers": [null, "yes"]}\n')
    assert load_samples(path)[0].answers == ("yes",)


def test_what_a_format_cannot_hold_is_refused_by_name(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"question": "?", "about": {}}\n')
    samples = load_samples(path)
    samples.save(tmp_path / "again.jsonl")
    assert load_samples(tmp_path / "again.jsonl").table["about"].to_pylist() == [{}]
    for refused in (lambda: samples.save(tmp_path / "t.parquet"), lambda: label(samples, run=tmp_path / "run")):
        with pytest.raises(InputError, match=r"cannot write .*parquet: .*'about'.*; remove that column"):
            refused()
    late = pa.table({"question": ["?"], "at": pa.array([2**60], pa.timestamp("s"))})
    thumbs = load_samples(pa.table({"question": ["?"], "thumb": [b"x"]}))
    for refused in (lambda: load_samples(late).digest, lambda: thumbs.save(tmp_path / "t.jsonl")):
        with pytest.raises(InputError, match="a column holds what JSON and Python cannot"):
            refused()
    assert thumbs.digest != load_samples(pa.table({"question": ["?"], "thumb": [b"y"]})).digest


def test_a_path_that_cannot_be_one_is_refused_and_an_address_stays_one(tmp_path):
    path = tmp_path / "t.jsonl"
    for image, why in (
        ("a\\u0000b", "a path with a null character"),
        ("A" * 5000, "5000 characters, which are no path"),
    ):
        path.write_text(f'{{"question": "?", "image": "{image}"}}\n')
        with pytest.raises(InputError, match=rf"sample '0' has the image .*, {why}; give the path of a file"):
            load_samples(path)
    path.write_text('{"question": "?", "image": "https://a.b/c.png"}\n')
    load_samples(path).save(tmp_path / "deep" / "t.jsonl")
    assert load_samples(tmp_path / "deep" / "t.jsonl").table["image"].to_pylist() == ["https://a.b/c.png"]
