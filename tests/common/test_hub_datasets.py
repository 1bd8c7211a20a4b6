"""Sample tables from the datasets library."""

from pathlib import Path

import pytest
from PIL import Image

from clasp_calib.cache.picture_files import image_key
from clasp_calib.common.errors import InputError
from clasp_calib.common.hub_datasets import is_dataset
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
