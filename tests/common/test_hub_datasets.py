"""Sample tables from the datasets library."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import InputError
from clasp_calib.common.hub_datasets import is_dataset, named_classes
from clasp_calib.common.sample_sources import load_samples

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory of `save_to_disk`: three questions about two pictures."""
    home = tmp_path_factory.mktemp("saved")
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    rows = {
        "prompt": ["How many?", "What colour?", "Why?"],
        "image": [pictures[0], pictures[1], pictures[0]],
        "answers": [["1"], ["blue"], []],
    }
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    dataset.save_to_disk(home / "one")
    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(home / "several")
    return home


PROMPT = {"question": "prompt"}


def test_rows_and_pictures_come_out_of_a_saved_dataset(saved, tmp_path):
    samples = load_samples(saved / "one", columns=PROMPT, pictures=tmp_path / "pictures")
    assert [s.question for s in samples] == ["How many?", "What colour?", "Why?"]
    assert [s.answers for s in samples] == [("1",), ("blue",), ()]
    paths = [sample.picture for sample in samples]
    assert paths[0] == paths[2] != paths[1]
    assert Image.open(paths[1]).convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert sorted((tmp_path / "pictures").iterdir()) == sorted(set(paths))


@pytest.mark.parametrize("loaded", [False, True])
def test_pictures_stay_in_memory_where_no_directory_is_given(saved, tmp_path, loaded):
    source = datasets.load_from_disk(str(saved / "one")) if loaded else saved / "one"
    held = [sample.picture for sample in load_samples(source, columns=PROMPT)]
    written = [sample.picture for sample in load_samples(source, columns=PROMPT, pictures=tmp_path)]
    assert held[0] == held[2] != held[1]
    # The same picture in a cache, wherever it was.
    assert [image_key(picture) for picture in held] == [image_key(path) for path in written]


def test_a_split_is_named_where_there_are_several(saved, tmp_path):
    def load(name, split, **options):
        return load_samples(saved / name, columns=PROMPT, dataset_split=split, **options)

    assert [sample.question for sample in load("several", "test")] == ["What colour?"]
    assert len(load("several", "train", limit=2)) == 2
    with pytest.raises(InputError, match="no split was named; name one of train, test with --dataset-split"):
        load("several", None)
    with pytest.raises(InputError, match="there is no split 'dev'"):
        load("several", "dev")
    with pytest.raises(InputError, match="has no named splits"):
        load("one", "train")


def test_places_without_a_dataset_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a directory without dataset_info\.json"):
        load_samples(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="cannot load the dataset"):
        load_samples(tmp_path)


@pytest.mark.parametrize("kind", ["saved", "loaded", "parquet", "folder", "arrow"])
def test_classes_have_their_names(tmp_path, kind):
    names = datasets.ClassLabel(names=["kite", "boat"])
    features = {"question": datasets.Value("string"), "answers": [names], "class": datasets.ClassLabel(names=["text"])}
    rows = {"question": ["a", "b", "c"], "answers": [[1, 0], [], [0]], "class": [0, None, -1]}
    dataset = datasets.Dataset.from_dict(rows, datasets.Features(features))
    source = dataset
    if kind == "saved":
        dataset.save_to_disk(source := tmp_path / "saved")
    elif kind != "loaded":
        dataset.to_parquet(tmp_path / "s.parquet")
        source = tmp_path / "s.parquet" if kind == "parquet" else tmp_path
        source = pq.read_table(source) if kind == "arrow" else source
    samples = load_samples(source)
    assert [(one.answers, one.label) for one in samples] == [(("boat", "kite"), "text"), ((), None), (("kite",), None)]


@pytest.mark.parametrize("several", [True, False])
def test_classes_within_annotations_have_their_names(several):
    one = {"answer": datasets.ClassLabel(names=["kite", "boat"]), "answer_id": datasets.Value("int64")}
    cell = {"answer": 1, "answer_id": 7}
    features = {"question": datasets.Value("string"), "answers": [one] if several else one}
    rows = {"question": ["a", "b"], "answers": [[cell] if several else cell, None]}
    found = load_samples(datasets.Dataset.from_dict(rows, datasets.Features(features)))
    assert [sample.answers for sample in found] == [("boat",), ()]


def test_a_class_without_a_name_is_refused():
    about = b'{"info": {"features": {"answers": {"_type": "ClassLabel", "names": ["kite"]}}}}'
    table = pa.table({"question": ["a"], "answers": [1]}).replace_schema_metadata({b"huggingface": about})
    with pytest.raises(InputError, match="the column 'answers' holds the class 1, which has no name"):
        named_classes(table)
    for hurt in (about[:-3], b"[]", b'{"info": {"features": [1]}}', b"[" * 99_999, about.replace(b"ClassLabel", b"?")):
        assert named_classes(table.replace_schema_metadata({b"huggingface": hurt}))["answers"].to_pylist() == [1]


def parquet(folder, name, questions, **more):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"question": questions, **more}), folder / name)


def test_a_directory_of_parquet_files_is_one_table(tmp_path):
    for number, name in enumerate(["train-00001-of-00002", "train-00000-of-00002", "test-00000-of-00001"]):
        parquet(tmp_path / "data", f"{name}.parquet", [f"q{number}"])
    assert [one.question for one in load_samples(tmp_path / "data", dataset_split="train")] == ["q1", "q0"]
    assert [one.question for one in load_samples(tmp_path / "data", dataset_split="test", limit=1)] == ["q2"]
    for split in (None, "dev"):
        with pytest.raises(InputError, match="2 splits; name one of 'test', 'train' with --dataset-split"):
            load_samples(tmp_path / "data", dataset_split=split)
    for number in range(2):
        parquet(tmp_path / "parts", f"{number:04}.parquet", [f"q{number}"])
    assert [one.question for one in load_samples(tmp_path / "parts")] == ["q0", "q1"]


def test_parquet_files_of_one_table_may_differ_in_the_order_of_columns_and_in_what_is_empty(tmp_path):
    parquet(tmp_path, "a-0.parquet", ["p"], note=pa.nulls(1), answers=["x"])
    parquet(tmp_path, "a-1.parquet", ["q"], answers=["y"], note=["n"])
    (tmp_path / "a-2.parquet").mkdir()
    samples = load_samples(tmp_path)
    assert [(one.question, one.answers) for one in samples] == [("p", ("x",)), ("q", ("y",))]
    assert samples.table["note"].to_pylist() == [None, "n"]
    parquet(tmp_path, "a-1.parquet", ["q"], answers=["y"])
    with pytest.raises(InputError, match=r"differ \(not all have the same columns\); write them with equal columns"):
        load_samples(tmp_path)


def test_a_repository_says_where_its_parquet_files_are(tmp_path):
    (tmp_path / "default").mkdir()
    for split in ("train", "test"):
        parquet(tmp_path / "default" / split, "0000.parquet", ["a"])
    place = re.escape(str(tmp_path))
    with pytest.raises(InputError, match=f"give {place}/default/test or {place}/default/train"):
        load_samples(tmp_path)


def test_parquet_files_that_are_no_whole_set_are_refused(tmp_path):
    parquet(tmp_path, "train-00000-of-00003.parquet", ["a"])
    parquet(tmp_path, "train-00002-of-00003.parquet", ["b"])
    with pytest.raises(InputError, match=r"holds 2 files of 'train', .* their names tell of 3; fetch what is missing"):
        load_samples(tmp_path)
    parquet(tmp_path / "mixed", "0.parquet", ["a"])
    parquet(tmp_path / "mixed", "1.parquet", ["a"], answers=["x"])
    with pytest.raises(InputError, match=r"the files of .*mixed differ"):
        load_samples(tmp_path / "mixed")


OUTSIDE = ["../cat.png", "/etc/hostname", "link/cat.png", "deep/../../cat.png"]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("kind", ["text", "struct", "video", "list"])
@pytest.mark.parametrize("source", ["saved", "folder"])
def test_a_dataset_names_no_picture_that_did_not_come_with_it(tmp_path, monkeypatch, path, kind, source):
    column = "video" if kind == "video" else "image"
    cell = {"struct": {"bytes": None, "path": path}, "list": ["a.png", path]}.get(kind, path)
    rows = {"question": ["a", "b"], column: [None, cell]}
    if source == "saved":
        datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    else:
        parquet(tmp_path / "set", "0.parquet", ["a", "b"], **{column: rows[column]})
    (tmp_path / "set" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"row 1 names the picture .*which did not come with it; .*--image-root"):
        load_samples(tmp_path / "set")
    with pytest.raises(InputError, match="row 1 names the picture"):
        load_samples(tmp_path / "set", image_root=tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="row 1 names the picture"):
        load_samples("set")
    if kind == "text" and path[0] != "/" and source == "folder":
        # Rows of a file are the user's own.
        assert load_samples(tmp_path / "set" / "0.parquet")[1].picture == tmp_path / "set" / path


def test_a_dataset_of_the_hub_names_what_was_fetched(tmp_path, monkeypatch):
    from huggingface_hub import constants

    fetched = tmp_path / "hub" / "datasets--org--set" / "snapshots" / "1"
    fetched.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def loaded(*paths):
        rows = {"question": ["?"] * len(paths), "image": list(paths)}
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict(rows))
        return load_samples("org/set@v1")

    assert loaded(str(fetched / "a.png"))[0].picture == fetched / "a.png"
    for path in ("a.png", "/etc/hostname", str(tmp_path / "hub" / "datasets--org--other" / "a.png")):
        with pytest.raises(InputError, match="row 0 names the picture"):
            loaded(path)


def test_paths_begin_at_the_image_root(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"question": "?", "image": "a.png"}\n{"question": "!", "image": "/b.png"}\n')
    (tmp_path / "pictures").mkdir()
    samples = load_samples(tmp_path / "s.jsonl", image_root=tmp_path / "pictures")
    assert [one.picture for one in samples] == [tmp_path / "pictures" / "a.png", Path("/b.png")]
    assert samples.digest == load_samples(tmp_path / "s.jsonl").digest
    samples.save(tmp_path / "run" / "labels.parquet")
    assert load_samples(tmp_path / "run" / "labels.parquet")[0].picture.resolve() == samples[0].picture
    assert (
        load_samples([{"question": "?", "image": "a.png"}], image_root=str(tmp_path))[0].picture == tmp_path / "a.png"
    )
    with pytest.raises(InputError, match=r"the directory of pictures .*s\.jsonl is none; give one"):
        load_samples(tmp_path / "s.jsonl", image_root=tmp_path / "s.jsonl")


def test_paths_of_pictures_in_a_parquet_file_are_relative_to_it(tmp_path):
    parquet(tmp_path, "s.parquet", ["?"], image=[{"bytes": None, "path": "p/a.png"}])
    assert load_samples(tmp_path / "s.parquet")[0].picture == tmp_path / "p" / "a.png"
    parquet(tmp_path, "t.parquet", ["?"], image=[{"url": "a.png"}])
    with pytest.raises(InputError, match="the image of row 0 is a dict; expected a path or a picture"):
        load_samples(tmp_path / "t.parquet")


def test_a_hub_id_is_loaded_by_name_and_revision(monkeypatch, saved):
    asked = []

    def load_dataset(path, revision):
        asked.append((path, revision))
        return datasets.load_from_disk(str(saved / "several"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_samples("org/questions@v1", columns=PROMPT, dataset_split="test")) == 1
    assert asked == [("org/questions", "v1")]


def test_a_stream_is_refused(saved):
    stream = datasets.load_from_disk(str(saved / "one")).to_iterable_dataset()
    with pytest.raises(InputError, match="the dataset is a IterableDataset; expected a Dataset, whose rows are all"):
        load_samples(stream)


def test_what_is_a_dataset_and_what_a_file(tmp_path):
    assert is_dataset(tmp_path)
    assert is_dataset(Path("org/name@v1.0"))
    assert not is_dataset(Path("org/name"))
    assert not is_dataset(Path("data/samples.jsonl"))
    assert not is_dataset(Path("samples"))
    (tmp_path / "samples").touch()
    assert not is_dataset(tmp_path / "samples")


def test_a_path_that_is_not_there_is_no_name_on_the_hub():
    with pytest.raises(InputError, match=r"no sample file at data/questions; .* its revision, such as data/questions@"):
        load_samples("data/questions")


def test_lists_of_pictures_come_out_of_a_dataset(tmp_path):
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    rows = {"question": ["Same?", "What?"], "images": [pictures, pictures[1:]]}
    features = {"question": datasets.Value("string"), "images": datasets.Sequence(datasets.Image())}
    source = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    one, other = load_samples(source, pictures=tmp_path)
    assert len(one.media) == 2
    assert other.media == one.media[1:]
