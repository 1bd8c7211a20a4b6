"""Pictures are the same if their content is, however they are called; what is no file is refused, not waited for."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clasp_calib.common import contents
from clasp_calib.common.contents import grouped, identified, image_key
from clasp_calib.common.errors import InputError, PictureError
from clasp_calib.common.hashing import sha256_file
from clasp_calib.common.samples import Sample


def write(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled as soon as a clock that ticks in milliseconds has gone on."""
    monkeypatch.setattr(contents, "_SETTLED", 20_000_000)
    monkeypatch.setattr(contents, "_known", {})
    return lambda: time.sleep(0.03)


def test_copies_links_and_spellings_are_one_picture(tmp_path):
    first = write(tmp_path / "a" / "one.png")
    copy = Path(shutil.copy(first, tmp_path / "other name.jpg"))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.link(first, tmp_path / "hard")
    same = [first, copy, tmp_path / "link/one.png", tmp_path / "link/../other name.jpg", tmp_path / "hard"]
    assert {image_key(path) for path in same} == {sha256_file(first)}
    assert image_key(write(tmp_path / "two.png", 1)) != image_key(first)
    samples = [Sample(str(n), "?", path) for n, path in enumerate(same)]
    assert len({sample.cluster for sample in grouped(samples)}) == 1
    assert len({sample.cluster for sample in samples}) == len(same)


def test_samples_that_share_pictures_by_others_are_one_group(tmp_path):
    a, b, c, d = (write(tmp_path / f"{n}.png", n) for n in range(4))
    copy = Path(shutil.copy(b, tmp_path / "copy.png"))
    shown = [(a, b), (copy, c), (d,), (c,), ()]
    groups = [s.group for s in grouped([Sample(str(n), "?", of) for n, of in enumerate(shown)])]
    assert groups == [min(map(image_key, (a, b, c)))] * 2 + [image_key(d), groups[0], None]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_group_is_called_the_same_whatever_the_order(tmp_path, order):
    a, b, c = (write(tmp_path / f"{n}.png", n) for n in range(3))
    pairs = [(a, b), (b, c), (c, a)]
    found = grouped([Sample(str(n), "?", pairs[n]) for n in order])
    assert {sample.group for sample in found} == {min(map(image_key, (a, b, c)))}


def no_files(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "frames").mkdir()
    (folder / "empty.png").touch()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return {
        folder / "pipe.png": "it is a pipe",
        folder / "frames": "it is a directory",
        folder / "empty.png": "it is empty",
        folder / "loop.png": "symbolic links",
        folder / "lost.png": "No such file",
        folder / "a\0b.png": "no file can have this name",
        folder / "\ud800.png": "no file can have this name",
        folder / ("long" * 100): "name too long",
        folder / "empty.png" / "a.png": "Not a directory",
        Path("/dev/zero"): "it is a device",
        Path("/proc/kmsg"): "it is empty|No such file|not permitted|ermission",
        Path(): "it is a directory",
    }


def test_what_is_no_file_is_named_and_nothing_waits_for_it(tmp_path):
    reasons = no_files(tmp_path)
    good = write(tmp_path / "good.png")
    keys, broken = identified([*reasons, good])
    assert list(keys) == [good]
    assert set(broken) == set(reasons)
    for path, pattern in reasons.items():
        with pytest.raises(PictureError, match=pattern) as caught:
            image_key(path)
        assert caught.value.reason == broken[path]
    with pytest.raises(InputError, match=r"12 pictures cannot be read \(.*pipe\.png: .*; and 7 more\)"):
        grouped([Sample(str(n), "?", path) for n, path in enumerate(reasons)])


def test_what_is_remembered_is_not_read_again(tmp_path, settled, monkeypatch):
    paths, hints = [write(tmp_path / f"{n}.png", n) for n in range(3)], tmp_path / "hints.parquet"
    settled()
    keys, _ = identified(paths, hints)
    contents._known.clear()
    with monkeypatch.context() as patched:
        patched.setattr(contents, "picture_file", lambda path: pytest.fail(f"{path} is read again"))
        assert identified(paths, hints) == (keys, {})
    contents._known.clear()
    hints.write_bytes(b"no table")
    assert identified(paths, hints) == (keys, {})
    contents._known.clear()
    hints.unlink()
    hints.mkdir()
    assert identified(paths, hints) == (keys, {})


def test_a_changed_file_is_another_picture_though_it_looks_the_same_in_its_directory(tmp_path, settled):
    path, hints = tmp_path / "a.bin", tmp_path / "hints.parquet"
    path.write_bytes(b"one")
    before = path.stat()
    settled()
    identified([path], hints)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settled()
    for _ in range(2):
        assert identified([path], hints)[0] == {path: sha256_file(path)}


def test_a_file_that_has_just_been_written_is_not_trusted(tmp_path):
    path, hints = tmp_path / "a.bin", tmp_path / "hints.parquet"
    path.write_bytes(b"one")
    identified([path], hints)
    assert not hints.exists()
