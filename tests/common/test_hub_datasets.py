"""Sample tables from the datasets library."""

from pathlib import Path

import pytest
from PIL import Image

from clasp_calib.common.errors import InputError
from clasp_calib.common.hub_datasets import is_dataset, read_dataset

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


def test_rows_and_pictures_come_out_of_a_saved_dataset(saved, tmp_path):
    table = read_dataset(saved / "one", None, tmp_path / "pictures")
    assert table["prompt"].to_pylist() == ["How many?", "What colour?", "Why?"]
    assert table["answers"].to_pylist() == [["1"], ["blue"], []]
    paths = [Path(path) for path in table["image"].to_pylist()]
    assert paths[0] == paths[2] != paths[1]
    assert Image.open(paths[1]).convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert sorted((tmp_path / "pictures").iterdir()) == sorted(set(paths))


def test_a_split_is_named_where_there_are_several(saved, tmp_path):
    assert read_dataset(saved / "several", "test", tmp_path)["prompt"].to_pylist() == ["What colour?"]
    assert read_dataset(saved / "several", "train", tmp_path, limit=2).num_rows == 2
    with pytest.raises(InputError, match="no split was named; name one of train, test with --dataset-split"):
        read_dataset(saved / "several", None, tmp_path)
    with pytest.raises(InputError, match="there is no split 'dev'"):
        read_dataset(saved / "several", "dev", tmp_path)
    with pytest.raises(InputError, match="has no named splits"):
        read_dataset(saved / "one", "train", tmp_path)


def test_places_without_a_dataset_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a directory without dataset_info\.json"):
        read_dataset(tmp_path, None, tmp_path)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="cannot load the dataset"):
        read_dataset(tmp_path, None, tmp_path)


def test_a_hub_id_is_loaded_by_name_and_revision(monkeypatch, saved, tmp_path):
    asked = []

    def load_dataset(path, revision):
        asked.append((path, revision))
        return datasets.load_from_disk(str(saved / "several"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_dataset(Path("org/questions@v1"), "test", tmp_path).num_rows == 1
    assert read_dataset(Path("org/questions"), "test", tmp_path).num_rows == 1
    assert asked == [("org/questions", "v1"), ("org/questions", None)]


def test_what_is_a_dataset_and_what_a_file(tmp_path):
    assert is_dataset(tmp_path)
    assert is_dataset(Path("org/name"))
    assert is_dataset(Path("org/name@v1.0"))
    assert not is_dataset(Path("data/samples.jsonl"))
    assert not is_dataset(Path("samples"))
    (tmp_path / "samples").touch()
    assert not is_dataset(tmp_path / "samples")
