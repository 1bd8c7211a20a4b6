"""Samples for a calibration: splits by picture, balanced classes, and what a table may not lack."""

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from speaking_models import write_picture, write_samples

from clasp_calib.calib.dataset import by_class, calibration_samples, of_split, split_of
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import CLASSES, Sample
from clasp_calib.reference.scenes import draw_scene


def write(folder, *rows):
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def row(tmp_path):
    write_picture(tmp_path / "a.png", 0)
    return {"id": "1", "image": "a.png", "question": "What?", "answers": ["a cup"], "class": "object"}


def test_a_whole_row_becomes_a_sample(tmp_path, row):
    path = write(tmp_path, row | {"metric": "anls", "split": "test", "intent": "presence"})
    expected = Sample("1", "What?", tmp_path / "a.png", ("a cup",), "anls", "test", "presence", "object")
    assert calibration_samples(load_samples(path), CLASSES) == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"class": None}, r"1 of 2 samples have no 'class' \(first id '1'\); run `clasp-calib label` first"),
        ({"image": None}, "no 'image' .*every sample needs a picture"),
        ({"answers": None}, "no 'answers' .*the score compares with them"),
        ({"answers": []}, "2 of 2 samples have no 'answers'"),
        ({"image": "b.png"}, r"'1' names the picture .*b\.png, which does not exist; paths are relative"),
        ({"image": "https://a.org/b.png"}, r"does not exist; addresses are not followed; fetch the pictures"),
        ({"image": "images\\b.png"}, r"does not exist; here directories are divided by /"),
        ({"image": 3}, "'1' has the image 3; expected the path of a file"),
        ({"class": "thing"}, "'1' has class 'thing'; expected one of object, attribute"),
        ({"split": "training"}, "'1' has split 'training'; expected one of train, calibration"),
        ({"metric": "bleu"}, "sample '1': unknown metric 'bleu'; expected one of exact, "),
        ({"question": "<image> or <image>?"}, r"'1': the question .* holds <image> 2 times and comes with 1 picture"),
        ({"question": " "}, r"1 rows have no question \(first id '1'\)"),
        ({"id": None}, "1 rows have no id"),
        ({"id": "2"}, "the id '2' more than once"),
        ({"id": ["2"]}, "column 'id': .*, a list; expected a text or a number"),
    ],
)
def test_what_a_table_may_not_lack(tmp_path, row, change, expected):
    # A column has one type: where the change is of another, the second row has it too.
    typed = {name: value for name, value in change.items() if isinstance(value, int | list)}
    second = row | {"id": "2"} | typed
    with pytest.raises(InputError, match=expected):
        calibration_samples(load_samples(write(tmp_path, row | change, second)), CLASSES)


def test_references_that_the_metric_cannot_compare_with_are_found_at_once(tmp_path, row):
    with pytest.raises(InputError, match=r"sample '1': a yes-or-no question has the answers \['red'\]; expected yes"):
        calibration_samples(load_samples(write(tmp_path, row | {"metric": "pope", "answers": ["red"]})), CLASSES)


def test_answers_may_be_lacking_where_nothing_compares_with_them(tmp_path, row):
    (sample,) = calibration_samples(load_samples(write(tmp_path, row | {"answers": None})), CLASSES, answers=False)
    assert sample.answers == ()


def test_a_single_answer_need_not_be_a_list(tmp_path, row):
    for answer in ("two", 2):
        assert calibration_samples(load_samples(write(tmp_path, row | {"answers": answer})), CLASSES)[0].answers == (
            str(answer),
        )


def test_a_column_that_only_later_rows_have_is_read(tmp_path, row):
    first = {name: value for name, value in row.items() if name != "answers"}
    with pytest.raises(InputError, match=r"1 of 2 samples have no 'answers' \(first id '1'\)"):
        calibration_samples(load_samples(write(tmp_path, first, row | {"id": "2"})), CLASSES)


PICTURES = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@given(PICTURES)
def test_splits_never_share_a_picture(pictures):
    samples = [Sample(str(i), "?", image=Path(f"{p}.png")) for i, p in enumerate(pictures)]
    sides = {}
    for sample in samples:
        assert sides.setdefault(sample.image, split_of(sample)) == split_of(sample)


def test_splits_have_their_shares(tmp_path, row):
    rows = [{**row, "id": str(i), "image": f"{i // 3}.png"} for i in range(3000)]
    samples = [Sample(r["id"], "?", tmp_path / r["image"]) for r in rows]
    of = {split: sum(split_of(s) == split for s in samples) / 3000 for split in ("calibration", "selection", "test")}
    assert of == pytest.approx({"calibration": 0.5, "selection": 0.25, "test": 0.25}, abs=0.05)


def test_a_given_split_stands_and_a_missing_one_is_filled(tmp_path, row):
    (tmp_path / "other.png").write_bytes((tmp_path / row["image"]).read_bytes())
    given = row | {"id": "2", "image": "other.png", "split": "selection"}
    samples = calibration_samples(load_samples(write(tmp_path, row, given)), CLASSES)
    assert [s.split for s in samples] == [split_of(samples[0]), "selection"]


@pytest.mark.parametrize("split", ["calibration", "selection", "test"])
def test_a_missing_split_is_that_of_the_same_picture(tmp_path, row, split):
    samples = calibration_samples(load_samples(write(tmp_path, row, row | {"id": "2", "split": split})), CLASSES)
    assert [s.split for s in samples] == [split, split]


def test_a_picture_in_two_splits_is_refused(tmp_path, row):
    rows = [row | {"id": split, "split": split} for split in ("test", "calibration")]
    with pytest.raises(InputError, match=r"a\.png is in the splits 'test' \(sample 'test'\) and 'calibration' \("):
        calibration_samples(load_samples(write(tmp_path, *rows)), CLASSES)


def test_a_copy_in_another_split_is_refused_with_both_rows(tmp_path, row):
    copy = write_copy(tmp_path / "a.png", tmp_path / "sub" / "b.jpg")
    rows = [row | {"split": "test"}, row | {"id": "2", "image": str(copy), "split": "selection"}]
    expected = r"a\.png and .*b\.jpg are the same, and in the splits 'test' \(sample '1'\) and 'selection' \(sample '2'"
    with pytest.raises(InputError, match=expected):
        calibration_samples(load_samples(write(tmp_path, *rows)), CLASSES)


def write_copy(path, copy):
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    return copy


def test_splits_depend_on_what_pictures_show_and_not_on_where_they_lie(tmp_path, row):
    """One folder a picture, all files of one name: they are divided, and a copy goes with its original."""
    (tmp_path / "one").mkdir()
    rows = []
    for number in range(24):
        (tmp_path / "one" / f"{number}").mkdir()
        write_picture(tmp_path / "one" / f"{number}" / "image.png", number)
        rows.append(row | {"id": str(number), "image": f"{number}/image.png"})
    write_copy(tmp_path / "one" / "7" / "image.png", tmp_path / "one" / "again" / "image.png")
    rows.append(row | {"id": "copy", "image": "again/image.png"})
    splits = [s.split for s in calibration_samples(load_samples(write(tmp_path / "one", *rows)), CLASSES)]
    assert set(splits) == {"calibration", "selection", "test"}
    assert splits[24] == splits[7]
    (tmp_path / "one").rename(tmp_path / "two")
    moved = calibration_samples(load_samples(tmp_path / "two" / "samples.jsonl"), CLASSES)
    assert [s.split for s in moved] == splits


def test_a_picture_saved_again_in_another_split_is_named(tmp_path, row, capsys):
    draw_scene(3).picture().save(tmp_path / "a.png")
    draw_scene(3).picture().save(tmp_path / "again.jpg", quality=60)
    again = row | {"id": "2", "image": "again.jpg"}
    splits = [s.split for s in calibration_samples(load_samples(write(tmp_path, row, again)), CLASSES)]
    assert ("again.jpg" in capsys.readouterr().err) == (splits[0] != splits[1])
    calibration_samples(
        load_samples(write(tmp_path, row | {"split": "test"}, again | {"split": "calibration"})), CLASSES
    )
    assert "a.png (test, sample '1') and " in capsys.readouterr().err


def test_groups_go_with_the_samples(tmp_path, row):
    write_copy(tmp_path / "a.png", tmp_path / "sub" / "b.jpg")
    found = calibration_samples(load_samples(write(tmp_path, row, row | {"id": "2", "image": "sub/b.jpg"})), CLASSES)
    assert {sample.cluster for sample in found} == {image_key(tmp_path / "a.png")}


def test_a_directory_is_called_one(tmp_path, row):
    (tmp_path / "frames").mkdir()
    given = row | {"id": "clip", "image": "frames"}
    with pytest.raises(InputError, match=r"'clip' names the picture .*frames, which cannot .* \(it is a directory\)"):
        calibration_samples(load_samples(write(tmp_path, row, given)), CLASSES)


def test_of_split_refuses_an_empty_one():
    with pytest.raises(InputError, match=r"no sample is of the split 'test' \(there are calibration\)"):
        of_split([Sample("1", "?", split="calibration")], "test")


def test_by_class_balances_and_depends_on_the_seed_alone(tmp_path):
    path = write_samples(tmp_path, {"calibration": 6})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**r, "class": r["gold_class"]}) + "\n" for r in rows))
    samples = calibration_samples(load_samples(path), CLASSES)
    chosen = by_class(samples, CLASSES, 4, seed=0)
    assert list(chosen) == ["attribute", "spatial", "counting"]
    assert all(len(of) == 4 and {s.label for s in of} == {label} for label, of in chosen.items())
    assert by_class(samples[::-1], CLASSES, 4, seed=0) == chosen
    assert by_class(samples, CLASSES, 4, seed=1) != chosen
    assert {label: len(of) for label, of in by_class(samples, CLASSES, None, 0).items()} == dict.fromkeys(chosen, 6)


def test_more_samples_of_a_class_only_add_to_those_that_fewer_would_be():
    samples = [Sample(str(i), "?", label="object") for i in range(10)]
    few, many = (by_class(samples, CLASSES, limit, 0)["object"] for limit in (3, 7))
    assert many[:3] == few
