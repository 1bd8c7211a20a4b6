"""Sample files as other programs leave them: read as they are, or refused with the line."""

import contextlib
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from clasp_calib.common import table_readers
from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.table_readers import parse_table


def rows_of(content, suffix, **columns):
    return parse_table(content if isinstance(content, bytes) else content.encode(), suffix, "f", columns).to_pylist()


def test_numbers_of_answers_and_ids_stay_as_they_are_written_and_others_become_numbers():
    lines = '{"id": 18446744073709551616, "answers": 3.10, "n": 3.10}\n{"id": 2.0, "answers": [1e3, null], "n": NaN}\n'
    assert rows_of(lines, ".jsonl") == [
        {"id": "18446744073709551616", "answers": ["3.10"], "n": 3.1},
        {"id": "2", "answers": ["1e3"], "n": None},
    ]


def test_columns_that_are_called_otherwise_are_answers_too(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"q": "?", "gold": 3, "key": 1e3}\n{"q": "!", "gold": [2.50, "x"], "key": 7}\n')
    samples = load_samples(path, columns={"question": "q", "answers": "gold", "id": "key"})
    assert [(one.id, one.answers) for one in samples] == [("1000", ("3",)), ("7", ("2.50", "x"))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": {"b": 1, "b": 2}}', "line 2: the key 'b' stands twice in one object"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "line 2 is nested too deeply"),
        ('{"question": "\\ud83d"}', r"line 2 holds half a character \(\\ud83d\)"),
        ('{"n": ' + "9" * 5000 + "}", "line 2: column 'n': .*4300"),
        ('{"answers": [[1]]}', r"line 2: column 'answers': .*, a list; expected"),
        ('{"id": {}}', "line 2: column 'id': .*; expected a text or a number"),
        ('{"a": 1', "line 2: "),
        ('"a"', "line 2: a str, expected an object"),
        ('{"n": 99999999999999999999}', "column 'n': "),
    ],
)
def test_a_line_that_is_not_understood_is_named(line, message):
    with pytest.raises(InputError, match=f"f cannot be read as jsonl: {message}.*; mend it, or write it again"):
        rows_of('{"question": "?"}\n' + line + "\n", ".jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,question,id\n1,?,2\n", "line 1: the column 'id' stands 2 times"),
        ("id;question\n1;So, what?\n", "line 1: the columns are divided by ';'; save the file with commas"),
        ("id\tquestion\n1\t?\n", r"line 1: the columns are divided by '\\t'"),
        ("id, id\n1,2\n", "line 1: the column 'id' stands 2 times"),
        ('id,question\n1,"open\n2,?\n3,?\n', "line 4: unexpected end of data"),
        ('id,question\n1,"a"b\n', "line 2: ',' expected after"),
        ("id,question\n\n1,?\n2\n", "line 4: a row has fewer fields than the header"),
        ("id,question\n1,a,b\n", "line 2: a row has more fields than the header; put texts with commas in quotes"),
        ('id,answers\n1,x\n2,"[1, 2]"\n', "row 1: column 'answers': .*printed form"),
        ("id,question\n1,a\0b\n", "line 2 holds a null byte"),
    ],
)
def test_a_row_of_csv_that_is_not_understood_is_named(text, message):
    with pytest.raises(InputError, match=f"f cannot be read as csv: {message}"):
        rows_of(text, ".csv")


def test_csv_as_pandas_and_spreadsheets_write_it():
    long = "x" * 300_000
    limit = csv.field_size_limit()
    assert rows_of(f"id , answers,note\r\n1.0,a | b,{long}\r\n\r\n2.0,,\r\n", ".csv") == [
        {"id": "1", "answers": ["a", "b"], "note": long},
        {"id": "2", "answers": [], "note": None},
    ]
    assert csv.field_size_limit() == limit
    assert rows_of('answers\n3.0\n""\n', ".csv") == [{"answers": ["3"]}, {"answers": []}]
    assert rows_of("answers\n3.0\n2.0\n", ".csv") == [{"answers": ["3.0"]}, {"answers": ["2.0"]}]
    assert rows_of("id,question\n", ".csv") == rows_of("", ".csv") == []
    assert rows_of("id,question\n1,é\n".encode("utf-16"), ".csv") == [{"id": "1", "question": "é"}]


def test_a_space_behind_every_comma_belongs_to_no_cell():
    text = 'id, question, answers\n1, "what, and why", a | b\n2,where,\n'
    assert rows_of(text, ".csv") == [
        {"id": "1", "question": "what, and why", "answers": ["a", "b"]},
        {"id": "2", "question": "where", "answers": []},
    ]
    assert rows_of("id,question\n1, why\n", ".csv") == [{"id": "1", "question": " why"}]


def test_whole_numbers_that_pandas_made_floating_for_a_gap_are_whole_in_jsonl(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"question": list("abc"), "gold": [7, None, 12]})
    frame.to_json(path := tmp_path / "s.jsonl", orient="records", lines=True)
    found = load_samples(path, columns={"answers": "gold"})
    assert [one.answers for one in found] == [one.answers for one in load_samples(frame, columns={"answers": "gold"})]
    assert [one.answers for one in found] == [("7",), (), ("12",)]
    assert rows_of('{"answers": 4.0}\n{"answers": NaN}\n{"n": 1}\n', ".jsonl")[0]["answers"] == ["4"]
    for rest in ('{"answers": 2.5}\n{"answers": null}', '{"answers": "x"}\n{"answers": null}', '{"answers": 3.0}'):
        assert rows_of('{"answers": 4.0}\n' + rest, ".jsonl")[0]["answers"] == ["4.0"]
    assert rows_of('{"answers": "4.0"}\n{"answers": null}', ".jsonl")[0]["answers"] == ["4.0"]


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_csv_equals_the_standard_librarys_reading(rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("question", "note"), *rows])
    text = buffer.getvalue()
    try:
        content = text.encode()
    except UnicodeEncodeError:
        return
    if "\0" in text:
        return
    expected = [
        {key: cell or None for key, cell in row.items()} for row in csv.DictReader(io.StringIO(text, newline=""))
    ]
    assert rows_of(content, ".csv") == expected


def parquet(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def test_parquet_is_refused_where_it_stands_for_more_than_memory(monkeypatch):
    content = parquet(pa.table({"question": ["x" * 1000] * 20_000}))
    assert len(content) < 20_000
    assert len(rows_of(content, ".parquet")) == 20_000
    monkeypatch.setattr(table_readers, "_most_memory", lambda: 10 << 20)
    with pytest.raises(InputError, match="f does not fit into memory; divide it"):
        rows_of(content, ".parquet")
    monkeypatch.setattr(table_readers, "MOST_ROWS", 100)
    with pytest.raises(InputError, match="it has 20000 rows, more than the 100"):
        rows_of(content, ".parquet")


def test_parquet_that_is_torn_or_names_a_column_twice_is_refused():
    content = parquet(pa.table({"question": ["?"] * 100}))
    for cut in (4, len(content) // 2, len(content) - 1):
        with pytest.raises(InputError, match="f cannot be read as parquet"):
            rows_of(content[:cut], ".parquet")
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["question", "question"])
    with pytest.raises(InputError, match="the column 'question' stands 2 times"):
        rows_of(parquet(twice), ".parquet")
    with pytest.raises(InputError, match="the table: the column 'question' stands 2 times"):
        load_samples(twice)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "frame", "list"])
def test_columns_of_other_kinds_pass_through(tmp_path, kind):
    rows = [{"question": "?", "boxes": [[1.5, 2.0]], "about": {"by": "me", "at": [1]}, "ok": True}]
    path = tmp_path / f"s.{kind}"
    if kind == "jsonl":
        path.write_text(json.dumps(rows[0]) + "\n")
    elif kind == "parquet":
        path.write_bytes(parquet(pa.Table.from_pylist(rows)))
    source = {"frame": lambda: pytest.importorskip("pandas").DataFrame(rows), "list": lambda: rows}.get(
        kind, lambda: path
    )
    assert load_samples(source()).table.drop_columns("id").to_pylist() == rows


def test_objects_of_a_data_frame_are_read_as_those_of_a_list():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"question": list("abcde"), "answers": [3, 2.5, None, "x", ["y", 3.0]]}, dtype=object)
    frame["id"] = [1.0, 2.0, 3.0, 4.0, 50000000000.0]
    samples = load_samples(frame)
    assert [one.answers for one in samples] == [("3",), ("2.5",), (), ("x",), ("y", "3")]
    assert samples[4].id == "50000000000"
    assert [one.answers for one in load_samples(frame.to_dict("records"))] == [one.answers for one in samples]
    frame["note"] = [1, "a", None, b"x", 2]
    with pytest.raises(InputError, match=r"the data frame makes no table: .*; give values of one kind"):
        load_samples(frame)
    with pytest.raises(InputError, match="the data frame makes no table: a column stands twice"):
        load_samples(pandas.concat([frame, frame], axis=1))


@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".csv", ".parquet"]))
def test_any_bytes_are_a_table_or_refused(content, suffix):
    with contextlib.suppress(InputError):
        parse_table(content, suffix, "f")
