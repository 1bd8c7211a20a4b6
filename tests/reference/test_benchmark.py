import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import CLASSES
from clasp_calib.reference.benchmark import FIRST_SEED, PICTURES, main, scene_questions, split_scene, write_benchmark
from clasp_calib.reference.families import INTENT
from clasp_calib.reference.questions import DIFFICULTIES
from clasp_calib.reference.scenes import CHALLENGE, draw_scene
from tools.reference.training.recipe import VALIDATION_SEED, Recipe

FEW = {"calibration": 2, "selection": 1, "test": 2}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("benchmark"), FEW)


def test_the_table_is_a_sample_table_with_pictures(few: Path) -> None:
    samples = load_samples(few)
    assert {s.split for s in samples} == set(FEW)
    assert all(s.image and Image.open(s.image).size == (336, 336) for s in samples)
    assert all(len(s.answers) == 1 and s.metric == "exact" for s in samples)
    assert all(s.intent is None and s.label is None for s in samples)
    assert Image.open(few.parent / "contact-sheet.png").width == 6 * 168


def test_rows_say_what_the_scenes_hold(few: Path) -> None:
    rows = pq.read_table(few).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["gold_class"] for row in rows} == set(CLASSES)
    assert {row["difficulty"] for row in rows} <= set(DIFFICULTIES)
    for split, count in FEW.items():
        for number in range(count):
            scene = split_scene(split, number)
            (name,) = {row["image"] for row in rows if row["id"].startswith(f"{split}-{scene.seed}-")}
            assert np.array_equal(np.asarray(Image.open(few.parent / name)), np.asarray(scene.picture()))
            drawn = [row for row in rows if row["image"] == name]
            asked = scene_questions(scene)
            assert len({question.label for question in asked}) == len(asked) == len(drawn)
            for row, question in zip(drawn, asked, strict=True):
                assert (row["question"], row["answers"]) == (question.text, [question.answer])
                assert (row["gold_intent"], row["gold_class"]) == INTENT[row["family"]]
                assert (row["family"], row["difficulty"]) == (question.family, question.difficulty)


def test_splits_share_no_picture(few: Path) -> None:
    rows = pq.read_table(few).to_pylist()
    pictures = {split: {r["image"] for r in rows if r["split"] == split} for split in FEW}
    assert sum(map(len, pictures.values())) == len(set().union(*pictures.values())) == sum(FEW.values())


def test_seeds_of_training_and_of_the_splits_never_meet() -> None:
    """With up to a million scenes of each, which is more than anybody draws."""
    recipe = Recipe()
    assert max(recipe.scenes, recipe.pictures, recipe.validation, *PICTURES.values()) < 10**6
    starts = sorted([*FIRST_SEED.values(), VALIDATION_SEED])
    assert min(b - a for a, b in pairwise(starts)) > 10**6
    assert list(FIRST_SEED) == ["train", "calibration", "selection", "test", "challenge"]


def test_the_challenge_split_is_harder_than_the_others(tmp_path: Path) -> None:
    rows = pq.read_table(write_benchmark(tmp_path, {"challenge": 1})).to_pylist()
    assert {row["split"] for row in rows} == {"challenge"}
    scene = draw_scene(FIRST_SEED["challenge"], CHALLENGE)
    assert np.array_equal(np.asarray(Image.open(tmp_path / rows[0]["image"])), np.asarray(scene.picture()))
    assert split_scene("test", 3) == draw_scene(FIRST_SEED["test"] + 3)


def test_the_same_draw_gives_the_same_bytes(few: Path, tmp_path: Path) -> None:
    again = write_benchmark(tmp_path, FEW)
    files = sorted(p for p in few.parent.rglob("*") if p.is_file())
    assert len(files) == 2 + sum(FEW.values())
    for file in files:
        assert file.read_bytes() == (again.parent / file.relative_to(few.parent)).read_bytes()


def test_jsonl_says_what_parquet_says(few: Path, tmp_path: Path) -> None:
    lines = write_benchmark(tmp_path, FEW, "jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == pq.read_table(few).to_pylist()


def test_the_datasets_library_reads_it(few: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset("parquet", data_files=str(few), split="train", cache_dir=str(tmp_path))
    assert read.to_list() == pq.read_table(few).to_pylist()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected splits of"):
        write_benchmark(tmp_path, {"validation": 1})
    with pytest.raises(InputError, match="one of parquet, jsonl"):
        write_benchmark(tmp_path, FEW, "csv")
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(InputError, match="give another place"):
        write_benchmark(blocked / "below", FEW)


@pytest.mark.parametrize(
    ("more", "splits"), [((), {"calibration", "selection", "test"}), (("--challenge", "--train"), set(FIRST_SEED))]
)
def test_as_a_script(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    splits: set[str],
) -> None:
    options = [word for split in ("--calibration", "--selection", "--test", *more) for word in (split, "1")]
    monkeypatch.setattr("sys.argv", ["benchmark", str(tmp_path), "--format", "jsonl", *options])
    main()
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "samples.jsonl"
    assert {json.loads(line)["split"] for line in path.read_text().splitlines()} == splits


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    """By the seed of each; the questions are about what is drawn."""
    sizes = [(336, 336), (420, 252), (252, 378)]
    table = write_benchmark(tmp_path, {"calibration": 9, "test": 3}, sizes=sizes)
    rows = pq.read_table(table).to_pylist()
    found = {row["image"]: Image.open(tmp_path / row["image"]).size for row in rows}
    assert set(found.values()) == set(sizes)
    again = write_benchmark(tmp_path / "again", {"test": 3}, sizes=sizes)
    assert {row["id"] for row in pq.read_table(again).to_pylist()} <= {row["id"] for row in rows}
    scene = split_scene("test", 1, sizes)
    assert scene == draw_scene(FIRST_SEED["test"] + 1, size=scene.size)
    asked = {question.text for question in scene_questions(scene)}
    assert asked == {row["question"] for row in rows if row["image"].endswith(f"{scene.seed:08d}.png")}
