"""Datasets by ``hf:``: on the Hub (a stand-in), saved, as Parquet files in a directory, and one file."""

from pathlib import Path

import pytest
from readers.published import encoded

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples

datasets = pytest.importorskip("datasets")


def dataset_of(*answers, colours=("red", "blue")):
    rows = {
        "question": [f"What {n}?" for n in range(len(answers))],
        "image": [{"bytes": encoded(colours[n % 2]), "path": None} for n in range(len(answers))],
        "extra": [{"bytes": encoded("green"), "path": None}] * len(answers),
        "answers": list(answers),
        "kind": [n % 2 for n in range(len(answers))],
    }
    image = datasets.Image()
    kinds = datasets.ClassLabel(names=["colour", "shape"])
    features = {"question": datasets.Value("string"), "image": image, "extra": image, "kind": kinds}
    return datasets.Dataset.from_dict(rows, datasets.Features({**features, "answers": datasets.Value("string")}))


@pytest.fixture
def hub(monkeypatch):
    """A Hub with one dataset of two configurations; gives what was asked of it."""
    asked = []

    def load_dataset(name, config=None, revision=None):
        asked.append((name, config, revision))
        if config is None:
            raise ValueError("Config name is missing. Please pick one among: ['easy', 'hard']")
        return datasets.DatasetDict({"dev": dataset_of("a"), "test": dataset_of("b", config)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, revision: ["easy", "hard"])
    return asked


def answers(samples):
    return [one.answers[0] for one in samples]


def test_a_dataset_on_the_hub(hub, tmp_path):
    samples = load_samples("hf:org/name@v1:hard:test", pictures=tmp_path)
    assert answers(samples) == ["b", "hard"]
    assert hub == [("org/name", "hard", "v1")]
    assert samples.table["kind"].to_pylist() == ["colour", "shape"]
    assert [one.picture.is_file() for one in samples] == [True, True]
    assert all(Path(path).is_file() for path in samples.table["extra"].to_pylist())
    assert answers(load_samples("hf:org/name:easy", dataset_split="dev")) == ["a"]
    assert answers(load_samples(Path("hf:org/name:easy:test"), limit=1)) == ["b"]
    assert hub[1:] == [("org/name", "easy", "main")] * 2


@pytest.mark.parametrize(
    ("given", "split", "told"),
    [
        ("hf:org/name", None, "cannot load the dataset org/name@main .*pick one among: .*easy"),
        ("hf:org/name:test", None, "cannot load the dataset org/name@main .*pick one among"),
        ("hf:org/name:easy", None, "no split was named; name one of dev, test"),
        ("hf:org/name:easy:val", None, "there is no split 'val'; name one of dev, test"),
        ("hf:org/name:easy:dev", "test", "names the split 'dev', and .* 'test'"),
        ("hf:org/name:a:b:c", None, "has 3 names behind the dataset; expected hf:NAME:CONFIG:SPLIT"),
        ("hf:name", None, "names neither a dataset on the Hub nor a directory"),
    ],
)
def test_what_the_hub_has_not(hub, given, split, told):
    with pytest.raises(InputError, match=told):
        load_samples(given, dataset_split=split)


def test_a_hub_out_of_reach_is_named(monkeypatch):
    def unreachable(name, revision):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "get_dataset_config_names", unreachable)
    with pytest.raises(InputError, match=r"which configurations org/name@main has .*or say hf:org/name@main::test"):
        load_samples("hf:org/name:test")


def test_a_saved_dataset(tmp_path):
    datasets.DatasetDict({"dev": dataset_of("a"), "test": dataset_of("b", "c")}).save_to_disk(tmp_path / "saved")
    whole = load_samples(tmp_path / "saved", dataset_split="test")
    samples = load_samples(f"hf:{tmp_path / 'saved'}:test")
    assert answers(samples) == answers(whole) == ["b", "c"]
    assert samples[0].picture == whole[0].picture
    with pytest.raises(InputError, match="no split was named; name one of dev, test"):
        load_samples(f"hf:{tmp_path / 'saved'}")


def test_a_directory_of_parquet_files(tmp_path):
    (tmp_path / "set" / "easy").mkdir(parents=True)
    many = dataset_of(*(str(n) for n in range(150)))
    for number in range(2):
        many.select(range(number * 75, number * 75 + 75)).to_parquet(
            tmp_path / "set" / "easy" / f"test-{number:05}-of-00002.parquet"
        )
    for given in ("{}/easy", "{}:easy", "{}:easy:test", "{}/easy:test"):
        samples = load_samples("hf:" + given.format(tmp_path / "set"), pictures=tmp_path / "pictures")
        assert answers(samples) == [str(n) for n in range(150)]
    assert len(load_samples(f"hf:{tmp_path / 'set'}:easy", limit=70)) == 70
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    with pytest.raises(InputError, match="splits; name one of 'test'"):
        load_samples(f"hf:{tmp_path / 'set'}:easy:dev")
    dataset_of("x").remove_columns("extra").to_parquet(tmp_path / "set" / "easy" / "test-00001-of-00002.parquet")
    with pytest.raises(InputError, match=r"test-00001-of-00002.parquet has other columns than .*test-00000"):
        load_samples(f"hf:{tmp_path / 'set'}:easy")


def test_one_parquet_file(tmp_path):
    path = tmp_path / "file.parquet"
    dataset_of("a", "b").to_parquet(path)
    assert answers(load_samples(f"hf:{path}")) == answers(load_samples(path)) == ["a", "b"]
    with pytest.raises(InputError, match="is a file, and 'test' would be a split"):
        load_samples(f"hf:{path}", dataset_split="test")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        load_samples(f"hf:{path}")
