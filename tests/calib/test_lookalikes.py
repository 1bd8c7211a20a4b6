"""Pictures that look alike in different splits: found without comparing all pairs, and named."""

import io
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from PIL import Image

from clasp_calib.calib import lookalikes
from clasp_calib.calib.lookalikes import APART, TINT, alike, look_of, warn_of_lookalikes
from clasp_calib.common.samples import Sample
from clasp_calib.reference.scenes import draw_scene


def saved_again(picture, quality=40):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(picture):
    return picture.resize((200, 200))


def cropped(picture):
    width, height = picture.size
    return picture.crop((width // 100, height // 100, width - width // 100, height - height // 100))


def apart(one, other):
    tint = max(abs((one >> shift & 255) - (other >> shift & 255)) for shift in (0, 8, 16))
    return (one >> 24 ^ other >> 24).bit_count(), tint


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.sets(st.integers(0, 63), max_size=12), st.integers(0, 20)), max_size=20),
)
def test_exactly_the_pairs_within_the_bounds_are_found(hashes, changes):
    looks = [value << 24 for value in hashes]
    for place, bits, tint in changes:
        looks.append((hashes[place % len(hashes)] ^ sum(1 << bit for bit in bits)) << 24 | tint << 8)
    first = {look: place for place, look in reversed(list(enumerate(looks)))}
    expected = {(first[look], place) for place, look in enumerate(looks) if first[look] != place}
    for (one, place), (other, later) in combinations(first.items(), 2):
        bits, tint = apart(one, other)
        if bits <= APART and tint <= TINT:
            expected.add((min(place, later), max(place, later)))
    assert alike(looks) == sorted(expected)


@pytest.mark.parametrize("change", [saved_again, resized, cropped])
def test_what_is_saved_again_resized_or_cropped_looks_alike_and_another_scene_does_not(change):
    looks = [look_of(draw_scene(number).picture()) for number in range(12)]
    again = [look_of(change(draw_scene(number).picture())) for number in range(12)]
    assert alike(looks + again) == [(number, number + 12) for number in range(12)]


def test_a_colour_of_its_own_tells_flat_pictures_apart():
    red, green, bright = (look_of(Image.new("RGB", (50, 50), c)) for c in ("red", (0, 255, 0), (250, 5, 0)))
    assert alike([red, green, bright]) == [(0, 2)]


@pytest.fixture
def album(tmp_path):
    """Four pictures in three splits; the test picture `b` is the calibration picture `a`, saved again."""
    scenes = {name: draw_scene(number).picture() for number, name in enumerate("acd")}
    scenes["b"] = saved_again(scenes["a"])
    sides = {"a": "calibration", "b": "test", "c": "selection", "d": "calibration"}
    for name, scene in scenes.items():
        scene.save(tmp_path / f"{name}.png")
    return [Sample(name, "?", tmp_path / f"{name}.png", split=split) for name, split in sides.items()]


def test_lookalikes_of_different_splits_are_named(album, capsys):
    warn_of_lookalikes(album)
    said = capsys.readouterr().err
    assert "a.png (calibration, sample 'a') and " in said
    assert "b.png (test, sample 'b'); if they show the same" in said
    assert "c.png" not in said


def test_within_a_split_nothing_is_said(album, capsys):
    warn_of_lookalikes([Sample(s.id, "?", s.image, split="test") for s in album])
    warn_of_lookalikes([Sample(s.id, "?", s.image, split={"test": "train"}.get(s.split, s.split)) for s in album])
    assert capsys.readouterr().err == ""


def test_what_cannot_be_decoded_is_passed_over(album, capsys, tmp_path):
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    warn_of_lookalikes(album)
    assert capsys.readouterr().err == ""


def test_looks_are_remembered_by_content(album, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lookalikes, "_known", {})
    warn_of_lookalikes(album, tmp_path / "hints.parquet")
    lookalikes._known.clear()
    monkeypatch.setattr(lookalikes, "look_of", lambda image: pytest.fail("it is decoded again"))
    moved = [Sample(s.id, "?", s.image.rename(tmp_path / f"moved-{s.id}"), split=s.split) for s in album]
    warn_of_lookalikes(moved, tmp_path / "hints.parquet")
    assert "moved-b (test, sample 'b')" in capsys.readouterr().err
    assert Path(tmp_path / lookalikes.FILE).exists()
