"""Who reads a source: by its prefix, by a look at it, or nobody, each with an error that says what there is."""

import io
import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from clasp_calib.common import plugins
from clasp_calib.common.errors import InputError
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.sample_readers import GROUP, Beginning, SampleReader, SampleSource, absolute
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.readers.json_elements import json_lines_of


class Lines(SampleReader):
    """Rows as they stand in a file whose first row has a key ``lines``."""

    about = "rows"

    def claims(self, beginning: Beginning) -> bool:
        return "lines" in beginning.first_object

    def rows(self, source: SampleSource) -> Iterator[dict]:
        (path,) = source.files("FILE.json")
        for _, row in json_lines_of(path):
            yield {key: cell for key, cell in row.items() if key != "lines"}


class Same(Lines):
    """Claims the same files."""


class Split(Lines):
    """Of a split."""

    splits = True

    def claims(self, beginning: Beginning) -> bool:
        return beginning.path.is_dir()

    def rows(self, source: SampleSource) -> Iterator[pa.Table]:
        picture = io.BytesIO()
        Image.new("RGB", (3, 3), "red").save(picture, "PNG")
        yield pa.table({"question": ["Which?"], "image": [picture.getvalue()], "answers": [source.split]})
        yield pa.table({"question": ["And?"], "image": [[picture.getvalue()] * 2], "answers": [source.split]})


@pytest.fixture
def brought(monkeypatch):
    def points(**readers):
        found = {name: [EntryPoint(name, f"{__name__}:{kind}", GROUP)] for name, kind in readers.items()}
        monkeypatch.setattr(plugins, "brought", lambda group: found)

    points(lines="Lines", split="Split")
    return points


def written(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps({"lines": 1, **row}) + "\n" for row in rows))
    return path


def test_a_prefix_or_a_look_finds_the_reader(brought, tmp_path):
    rows = [{"question": "What?", "image": "a.png", "answers": ["cat"], "kind": k} for k in ("x", None)]
    path = written(tmp_path / "rows.json", *rows)
    for given in (path, str(path), f"lines:{path}", Path(f"lines:{path}")):
        samples = load_samples(given)
        assert samples.table["kind"].to_pylist() == ["x", None]
        assert samples[0].image == tmp_path / "a.png"
    assert len(load_samples(path, limit=1)) == 1
    assert load_samples(path, image_root="/")[0].image == Path("/a.png")
    assert load_samples(path, columns={"class": "kind"})[0].label == "x"


def test_a_table_of_ours_is_no_readers(brought, tmp_path):
    path = written(tmp_path / "rows.jsonl", {"question": "What?"}, {"question": "Why?"})
    assert load_samples(path).table.column_names == ["id", "lines", "question"]
    assert load_samples(f"lines:{path}").table.column_names == ["id", "question"]
    other = written(tmp_path / "other.jsonl", {"prompt": "What?"})
    assert "lines" in load_samples(other, columns={"question": "prompt"}).table.column_names


def test_more_rows_than_a_batch_make_one_table(brought, tmp_path):
    rows = [{"question": f"{n}?", "answers": [n], "n": n} for n in range(2050)]
    rows[1500] |= {"images": ["a.png", "b.png"], "late": 0.5}
    samples = load_samples(written(tmp_path / "rows.json", *rows))
    assert samples.table["n"].to_pylist() == list(range(2050))
    assert [len(one.media) for one in samples[1498:1502]] == [0, 0, 2, 0]
    assert samples.table["late"].null_count == 2049
    assert len(load_samples(tmp_path / "rows.json", limit=1025)) == 1025


def test_pictures_inside_are_unpacked_once_and_a_split_is_handed_on(brought, tmp_path):
    (tmp_path / "set").mkdir()
    samples = load_samples(tmp_path / "set", dataset_split="val", pictures=tmp_path / "pictures")
    assert samples[0].answers == ("val",)
    (file,) = (tmp_path / "pictures").iterdir()
    assert [one.media for one in samples] == [(file.resolve(),), (file.resolve(),) * 2]
    held = load_samples(f"split:{tmp_path / 'set'}", dataset_split="val")
    assert len(held.held) == 1


def test_a_run_remembers_a_source_from_any_directory(brought, tmp_path, monkeypatch):
    path = written(tmp_path / "rows.json", {"question": "What?"})
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    run.remember_table(Path("lines:rows.json"))
    assert run.table == Path(f"lines:{path}")
    assert absolute(Path("lines:rows.json+rows.json+gone")) == f"lines:{path}+{path}+gone"
    assert absolute(Path("org/name@main")) == "org/name@main"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("other:{rows}", "there is no reader 'other'; expected a path, or one of the prefixes lines, split"),
        ("lines:{rows}+{rows}", "names 2 files; expected 1: FILE.json"),
        ("lines:gone.json", "cannot read the file FILE.json gone.json"),
        ("{odd}", "ends in '.tsv'; expected one of .*by a prefix, PREFIX:.*there are lines, split"),
    ],
)
def test_what_nobody_reads_is_refused(brought, given, told, tmp_path):
    path, odd = written(tmp_path / "rows.json", {"question": "What?"}), tmp_path / "odd.tsv"
    odd.write_text("a\tb\n")
    with pytest.raises(InputError, match=told):
        load_samples(given.format(rows=path, odd=odd))


def test_two_that_claim_a_file_are_named(brought, tmp_path):
    brought(lines="Lines", same="Same")
    path = written(tmp_path / "rows.json", {"question": "What?"})
    with pytest.raises(InputError, match=rf"2 formats; say which: lines:{path} \(rows\) or same:{path} \(rows\)"):
        load_samples(path)
    assert len(load_samples(f"same:{path}")) == 1


def test_a_reader_that_is_none_is_named(brought, tmp_path):
    brought(lines="Path")
    with pytest.raises(InputError, match=r"the reader 'lines' of .* expected a subclass of"):
        load_samples(f"lines:{tmp_path}")


def test_a_split_of_a_file_without_is_refused(brought, tmp_path):
    path = written(tmp_path / "rows.json", {"question": "What?"})
    with pytest.raises(InputError, match="a dataset split \\('val'\\) is for datasets"):
        load_samples(path, dataset_split="val")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": "What?", "answers": [True]}, "row 1: column 'answers': the truth value True"),
        ({"question": "What?", "id": [1]}, "row 1: column 'id'"),
        ({"question": "What?", "n": "two"}, "'n' is a int in row 0 and a str in row 1; give values of one kind"),
        ({"question": "What?", "image": 3}, "the image of row 1 is a int; expected a path or a picture"),
        ({"question": " "}, "1 rows have no question"),
    ],
)
def test_rows_that_are_none_are_named(brought, row, told, tmp_path):
    path = written(tmp_path / "rows.json", {"question": "What?", "n": 1}, row)
    with pytest.raises(InputError, match=told):
        load_samples(path)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (
            '{"info": {"a": [1, {"b": 2}]}, "questions": [{"id": 1, "q": "x:y{", ',
            "info info.a info.a[].b questions questions[].id questions[].q",
        ),
        ('[{"id": "\\"{", "turns": [{"from": "human", "val', "[].id [].turns [].turns[].from"),
        ('{"1": {"answer": "a"}}', "1 1.answer"),
        ('{"n": [[1, 2], [3]], "m": null}', "n m"),
        ("a\tb", ""),
        ("]", ""),
        ("", ""),
    ],
)
def test_the_keys_of_a_beginning(text, keys):
    assert Beginning(Path("x"), text.encode()).keys == set(keys.split())


def test_a_look_goes_down_a_few_levels_only(tmp_path):
    """The path of every level is a text: without a bound, 64 KiB of brackets would take gigabytes."""
    path = tmp_path / "deep.json"
    path.write_text("[" * 60_000)
    assert not Beginning(path, path.read_bytes()).keys
    nested = '{"a": ' * 100 + "1" + "}" * 100
    assert max(key.count(".") for key in Beginning(path, nested.encode()).keys) < 40
