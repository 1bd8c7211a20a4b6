"""Samples out of whatever a notebook holds: the same from all of it, pictures in memory included."""

import io
import json
import pickle
import subprocess
import sys
import uuid
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin

from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.pictures import load_picture

RED, BLUE = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
ROWS = [
    {"id": "a", "question": "What?", "image": "cat.jpg", "answers": ["cat"], "note": 1},
    {"id": "b", "question": "Where?", "image": RED, "answers": [], "note": 2},
    {"id": "c", "question": "Why?", "image": RED.copy(), "answers": [], "note": 3},
]


def test_a_sample_brings_what_it_is_given_into_one_form():
    sample = Sample("1", "What?", "cat.jpg", ["cat"], video="film.mp4")
    assert (sample.image, sample.answers, sample.video) == (Path("cat.jpg"), ("cat",), Path("film.mp4"))
    assert Sample("1", "What?", [RED, "cat.jpg"]).image[1] == Path("cat.jpg")
    assert Sample("1", "What?", ["cat.jpg"]).picture == Sample("1", "What?", "cat.jpg", "cat").picture
    assert Sample("1", "What?", "cat.jpg", "cat").answers == ("cat",)
    assert hash(Sample("1", "What?", RED)) == hash(Sample("1", "What?", RED.copy()))
    assert Sample("1", "What?", RED) != Sample("1", "What?", BLUE)
    with pytest.raises(InputError, match="sample '1' has the image 3; expected the path of a file, a PIL picture"):
        Sample("1", "What?", 3)


@pytest.mark.parametrize(
    ("given", "has"),
    [
        ({}, "no picture"),
        ({"image": ["a.png", RED]}, "2 pictures"),
        ({"image": "a.png", "video": "film.mp4"}, "a video and pictures"),
    ],
)
def test_what_is_not_one_picture_is_refused_by_name(given, has):
    with pytest.raises(InputError, match=f"sample '1' has {has}; expected one picture or one video"):
        _ = Sample("1", "What?", **given).picture


def test_a_video_is_known_by_its_name():
    film = Sample("1", "What?", video="film.MP4")
    assert (film.picture, film.modality) == (Path("film.MP4"), "video")
    assert Sample("1", "What?", "film.webm").modality == "video"
    assert Sample("1", "What?", RED).modality == Sample("1", "What?", "a.png").modality == "image"
    with pytest.raises(InputError, match=r"sample '1' has the video film\.gif; expected a name that ends in \.mp4"):
        _ = Sample("1", "What?", video="film.gif").picture


def test_a_sample_of_paths_imports_no_pillow():
    code = (
        "import sys; from clasp_calib.common.samples import Sample; Sample('1', '?', 'a.png', ['x']).picture\n"
        "print(sorted({'PIL', 'torch', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_a_picture_in_memory_is_known_by_what_is_seen_of_it(mode):
    noise = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    picture = Image.fromarray(noise).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16))
    held = Sample("1", "?", picture).picture
    again = pickle.loads(pickle.dumps(held))
    assert held == again
    assert load_picture(held).tobytes() == load_picture(again).tobytes()
    noise[0, 0] ^= 255
    assert held != Sample("1", "?", Image.fromarray(noise)).picture


def test_a_turned_picture_stays_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    RED.resize((20, 10)).save(tmp_path / "turned.tiff", exif=exif)
    with Image.open(tmp_path / "turned.tiff") as picture:
        held = Sample("1", "?", picture).picture
        assert load_picture(held).size == load_picture(pickle.loads(pickle.dumps(held))).size == (10, 20)


def as_pandas():
    return pytest.importorskip("pandas").DataFrame(ROWS, index=[7, 8, 9])


def as_pandas_with_gaps():
    frame = pytest.importorskip("pandas").DataFrame(ROWS)
    frame["metric"] = [None, float("nan"), None]
    return frame


@pytest.mark.parametrize(
    "source",
    [
        lambda: ROWS,
        lambda: [Sample(row["id"], row["question"], row["image"], row["answers"]) for row in ROWS],
        lambda: iter([dict(row) for row in ROWS]),
        as_pandas,
        as_pandas_with_gaps,
        lambda: load_samples(ROWS),
    ],
)
def test_the_same_samples_from_every_source(source):
    samples = load_samples(source())
    assert [(s.id, s.question, s.answers, s.metric) for s in samples] == [
        ("a", "What?", ("cat",), None),
        ("b", "Where?", (), None),
        ("c", "Why?", (), None),
    ]
    assert samples[0].picture == Path("cat.jpg")
    assert samples[1].picture == samples[2].picture
    assert load_picture(samples[1].picture).tobytes() == RED.tobytes()
    assert len(load_samples(source(), limit=2)) == 2


def test_an_arrow_table_with_encoded_pictures(tmp_path):
    RED.save(tmp_path / "red.png")
    content = (tmp_path / "red.png").read_bytes()
    for cells in ([content, None], [{"bytes": content, "path": "x.png"}, None]):
        samples = load_samples(pa.table({"question": ["a", "b"], "image": cells, "extra": [1, 2]}))
        assert image_key(samples[0].picture) == sha256_file(tmp_path / "red.png")
        assert samples[1].media == ()
        assert samples.table["extra"].to_pylist() == [1, 2]


def test_several_pictures_pass_through_a_file(tmp_path):
    samples = load_samples([{"question": "Which?", "image": [RED, "b.png"]}, {"question": "Where?", "image": BLUE}])
    samples.save(tmp_path / "deep" / "samples.parquet")
    again = load_samples(tmp_path / "deep" / "samples.parquet")
    assert [len(sample.media) for sample in again] == [2, 1]
    assert load_picture(again[0].media[0]).tobytes() == RED.tobytes()
    assert again[0].media[1].resolve() == Path("b.png").resolve()
    with pytest.raises(InputError, match="has 2 pictures; expected one picture"):
        _ = again[0].picture


@pytest.mark.parametrize("name", ["samples.parquet", "samples.jsonl"])
def test_samples_are_saved_with_their_pictures_and_columns(tmp_path, name):
    load_samples(ROWS).save(tmp_path / name)
    again = load_samples(tmp_path / name)
    assert again.table["note"].to_pylist() == [1, 2, 3]
    assert again[0].picture.resolve() == Path("cat.jpg").resolve()
    assert again[1].picture == again[2].picture
    assert load_picture(again[1].picture).tobytes() == RED.tobytes()
    with pytest.raises(InputError, match=r"it ends in '\.xlsx'; end it in \.parquet or \.jsonl"):
        again.save(tmp_path / "samples.xlsx")


def test_the_digest_is_of_what_was_read(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"id": "a", "question": "What?"}\n{"id": "b", "question": "Where?"}\n')
    whole, some = load_samples(path), load_samples(path, limit=1)
    read = sha256_file(path)
    assert whole.digest == load_samples(path, limit=2).digest == read
    assert some.digest == whole[:1].digest != read
    late = load_samples(path)
    path.write_text('{"id": "a", "question": "Who?"}\n')
    assert late.digest == load_samples(late).digest == read


def test_the_digest_is_the_files_while_they_are_the_files(tmp_path):
    samples = load_samples(ROWS)
    assert (
        samples.digest
        == load_samples([*ROWS[:1], ROWS[2] | {"id": "b", "question": "Where?", "note": 2}, ROWS[2]]).digest
    )
    assert samples.digest != load_samples(ROWS[:2]).digest
    assert samples[:2].digest == load_samples(ROWS[:2]).digest
    samples.save(tmp_path / "samples.parquet")
    again = load_samples(tmp_path / "samples.parquet")
    assert again.digest == sha256_file(tmp_path / "samples.parquet")
    assert again.with_table(again.table.slice(1)).digest != again.digest


def test_samples_show_what_they_hold():
    rows = [row | {"class": "object", "split": split} for row, split in zip(ROWS, ["test", "test", None], strict=True)]
    samples = load_samples(rows)
    assert repr(samples).splitlines() == [
        "3 questions about 2 pictures, from the list of samples",
        "class   test  no split",
        "object     2         1",
    ]
    assert '<td style="text-align:right">2</td>' in samples._repr_html_()
    assert [sample.id for sample in samples[1:]] == ["b", "c"]
    assert samples[-1].id == "c"
    assert samples.to_pandas()["note"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (3, "samples cannot be read from a int; give a path, org/name@revision, a list of Sample"),
        ({"question": "?"}, "samples cannot be read from a dict"),
        ([], "the list of samples holds no rows"),
        (["What?"], "row 0 of the list of samples is a str; expected a Sample or a dict"),
        ([{"question": "?"}, {"question": " "}], r"1 rows have no question \(first id '1'\)"),
        ([{"question": "?", "id": "x"}] * 2, "the list of samples holds the id 'x' more than once"),
        ([{"question": "?", "image": 3}], "the list of samples: the image of row 0 is a int; expected a path or a"),
        ([{"question": "?", "split": "dev"}], "sample '0' has split 'dev'; expected one of train"),
        ([{"question": "?", "x": 1}, {"question": "?", "x": "a"}], "the list of samples makes no table: column 'x'"),
        ([{"question": "?", 3: "x"}], "the name of the column 3 is no text"),
        ([{"question": "?", "image": np.zeros((2, 2, 3))}], "the image of row 0 is a ndarray; expected a path or a"),
        ([{"question": "?", "answers": Fraction(1, 3)}], "row 0: column 'answers': .*, a Fraction; expected a text"),
        ([{"prompt": "?"}], "has no column 'question' .*columns={'question': 'NAME'}"),
        ("questions.jsonl", "no sample file at questions.jsonl; expected"),
    ],
)
def test_what_samples_cannot_be_made_of(source, expected):
    with pytest.raises(InputError, match=expected):
        load_samples(source)


def test_cells_of_a_data_frame_are_what_pandas_shows():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"question": ["a", "b"], "answers": np.array([0.1, 3], np.float32)})
    frame["image"] = pandas.array(["a.png", None], "string")
    frame["split"] = pandas.array([None, "test"], "string")
    frame["id"] = [uuid.UUID(int=number) for number in (1, 2)]
    found = load_samples(frame)
    assert [(one.answers, one.image, one.split) for one in found] == [
        (("0.1",), Path("a.png"), None),
        (("3",), None, "test"),
    ]
    assert found[1].id == "00000000-0000-0000-0000-000000000002"


def test_columns_are_mapped_at_once_and_each_to_one_that_means_something():
    rows = [{"question": "3", "answers": "How many?", "gold": "x"}]
    (swapped,) = load_samples(rows, columns={"question": "answers", "answers": "question"})
    assert (swapped.question, swapped.answers) == ("How many?", ("3",))
    for columns, message in (
        ({"anwsers": "gold"}, "'gold' is mapped to 'anwsers', which has no meaning; map it to one of id, question"),
        ({"question": "gold", "answers": "gold"}, "the column 'gold' is mapped to 'question' and to 'answers'"),
        ({"answers": "label"}, r"no column 'label' \(it has question, answers, gold\)"),
    ):
        with pytest.raises(InputError, match=message):
            load_samples(rows, columns=columns)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_leaves_something(limit):
    with pytest.raises(InputError, match=f"limit is {limit}; expected at least 1"):
        load_samples(ROWS, limit=limit)


def test_a_split_of_what_is_no_dataset_is_refused():
    with pytest.raises(InputError, match="the samples are no dataset, and a dataset split"):
        load_samples(ROWS, dataset_split="test")


def test_a_damaged_picture_is_refused_where_it_stands(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(tmp_path / "torn.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:9000])
    with Image.open(tmp_path / "torn.png") as torn, pytest.raises(InputError, match=r"cannot be read .*leave its"):
        load_samples([{"question": "?", "image": torn}])
    with pytest.raises(InputError, match=r"holds a picture that cannot be read .* in row 0; remove it"):
        load_samples([{"question": "?", "image": b"nothing"}], pictures=tmp_path)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 50_000_000, zip=True)
    swollen = io.BytesIO()
    RED.save(swollen, "PNG", pnginfo=text)
    for odd in (swollen.getvalue(), b"P6 30000 30000 255 "):
        with pytest.raises(InputError, match=r"holds a picture that cannot be read .* in row 0; remove it"):
            load_samples([{"question": "?", "image": odd}], pictures=tmp_path)


SEVERAL = [
    {"id": "a", "question": "Same: <image> and <image>?", "images": ["cat.jpg", "dog.jpg"]},
    {"id": "b", "question": "<image>\nWhere?", "image": "cat.jpg"},
    {"id": "c", "question": "Why?", "images": ["cat.jpg"]},
    {"id": "d", "question": "What is <image>?"},
]


def test_a_column_of_lists_of_pictures(tmp_path):
    file = tmp_path / "s.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in SEVERAL))
    samples = load_samples(file)
    cat, dog = tmp_path / "cat.jpg", tmp_path / "dog.jpg"
    assert [sample.media for sample in samples] == [(cat, dog), (cat,), (cat,), ()]
    assert [one.picture for one in samples[0].alone] == [cat, dog]
    assert [one.id for one in samples[1].alone] == ["b"]
    samples.save(tmp_path / "deep" / "s.parquet")
    assert [s.media for s in load_samples(tmp_path / "deep" / "s.parquet")] == [
        tuple(tmp_path / "deep" / ".." / path.name for path in sample.media) for sample in samples
    ]
    renamed = [{"pictures" if name == "images" else name: cell for name, cell in row.items()} for row in SEVERAL]
    mapped = load_samples(renamed, columns={"images": "pictures"}, image_root=tmp_path)
    assert list(mapped) == list(samples)


def test_lists_of_pictures_in_memory():
    rows = [{"question": "Same?", "images": [RED, BLUE]}, {"question": "What?", "image": BLUE}]
    for source in (rows, pytest.importorskip("pandas").DataFrame(rows)):
        one, other = load_samples(source)
        assert [image_key(picture) for picture in one.media] == [image_key(one.image[0]), image_key(other.picture)]
        assert one.image[0] != one.image[1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image": "cat.jpg"}, "the row 'a' has both an image and images; give all of them in images"),
        ({"images": "cat.jpg"}, "the row 'a' has the images 'cat.jpg'; expected a list of paths"),
        ({"images": ["cat.jpg"]}, r"sample 'a': the question .* holds <image> 2 times and comes with 1 picture\(s\)"),
        ({"question": "<image>, <image>, <image>"}, r"'a': .* holds <image> 3 times and comes with 2 picture\(s\)"),
    ],
)
def test_lists_of_pictures_that_do_not_fit(change, expected):
    with pytest.raises(InputError, match=expected):
        load_samples([{**SEVERAL[0], **change}])
