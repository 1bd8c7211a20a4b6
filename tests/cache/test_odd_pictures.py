"""Odd pictures: each is handled as transformers handles it, or left out and named, and the others go on."""

import json
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.image_utils import load_image

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.odd import FILE, odd_pictures
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.samples import Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import tiny_llava_directory

NOISE = np.random.default_rng(4).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tiny_llava_directory(tmp_path_factory.mktemp("checkpoint"))
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(NOISE).save(path, exif=exif)


def animated(path):
    frames = [Image.fromarray(np.roll(NOISE, 20 * number, 1)) for number in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def transparent(path):
    alpha = np.full((60, 80, 1), 255, np.uint8)
    alpha[:30] = 7
    Image.fromarray(np.concatenate([NOISE, alpha], -1)).save(path)


def opaque(path):
    Image.fromarray(np.concatenate([NOISE, np.full((60, 80, 1), 255, np.uint8)], -1)).save(path)


def transparent_palette(path):
    Image.fromarray(NOISE).quantize(16).save(path, transparency=3)


def sixteen_bits(path):
    Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257).save(path)


HANDLED = {
    "cmyk.jpg": (lambda path: Image.fromarray(NOISE).convert("CMYK").save(path), ""),
    "rotated.jpg": (rotated, ""),
    "grey.png": (lambda path: Image.fromarray(NOISE).convert("L").save(path), ""),
    "black and white.png": (lambda path: Image.fromarray(NOISE).convert("1").save(path), ""),
    "palette.png": (lambda path: Image.fromarray(NOISE).quantize(16).save(path), ""),
    "opaque.png": (opaque, ""),
    "named wrongly.txt": (lambda path: Image.fromarray(NOISE).save(path, "JPEG"), ""),
    "one pixel.png": (lambda path: Image.fromarray(NOISE[:1, :1]).save(path), ""),
    "transparent.png": (transparent, "partly transparent"),
    "transparent palette.gif": (transparent_palette, "partly transparent"),
    "animated.gif": (animated, "only the first of 3 frames"),
    "animated.webp": (animated, "only the first of 3 frames"),
    "16 bits.png": (sixteen_bits, "mode I;16 are cut off at 255"),
    "floating.tiff": (lambda path: Image.fromarray(NOISE[..., 0] / np.float32(255)).save(path), "mode F"),
}


def truncated(path):
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[:4000])


def corrupt(path):
    Image.fromarray(NOISE).save(path)
    content = bytearray(path.read_bytes())
    content[2000:6000] = bytes(4000)
    path.write_bytes(content)


def bomb(path):
    """A PNG of 10 kB that says it has 900 million pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


LEFT_OUT = {
    "truncated.png": (truncated, "truncated"),
    "corrupt.png": (corrupt, "broken|checksum|decoding|unrecognized|truncated"),
    "bomb.png": (bomb, "900000000 pixels.*decompression bomb"),
    "lost.png": (lambda path: None, "No such file"),
    "narrow.png": (lambda path: Image.new("RGB", (3, 700)).save(path), "no side may be over 200 times"),
    "text.png": (lambda path: path.write_text("no picture"), "no picture that Pillow knows"),
    "empty.jpg": (lambda path: path.touch(), "it is empty"),
    "a\0b.png": (lambda path: None, "no file can have this name"),
    "folder.png": (lambda path: path.mkdir(), "is a directory"),
    "pipe.png": (os.mkfifo, "is a pipe"),
    "film.mp4": (lambda path: path.write_bytes(b"\x00\x00\x00\x18ftypmp42"), "takes images only"),
}


def made(folder, kinds):
    samples = []
    for name, (write, _) in kinds.items():
        write(folder / name)
        samples.append(Sample(f"about {name}", "?", folder / name))
    return samples


def good(folder):
    Image.fromarray(NOISE[::-1].copy()).save(folder / "good.png")
    return Sample("good", "?", folder / "good.png")


def states_as_transformers_sees(model, processor, path):
    pixels = processor.image_processor(images=[load_image(str(path))], return_tensors="pt").pixel_values
    with torch.no_grad():
        return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[3][0, 1:]


def test_what_transformers_can_read_is_encoded_as_it_reads_it(bench, tmp_path):
    model, processor = bench
    samples = made(tmp_path, HANDLED)
    report = cache_features(model, processor, samples, tmp_path / "cache", FeatureOptions(layers=[3], batch_size=1))
    assert report.encoded == report.unique == len(HANDLED)
    assert report.left_out == ()
    with FeatureStore.open(tmp_path / "cache") as store:
        for sample in samples:
            got = store.read(image_key(sample.image), [3])[0]
            assert torch.equal(got, states_as_transformers_sees(model, processor, sample.image).half()), sample.image


def test_what_is_not_seen_whole_is_noted_also_when_it_is_cached_already(bench, tmp_path):
    samples = made(tmp_path, HANDLED)
    noted = {name: note for name, (_, note) in HANDLED.items() if note}
    for _ in range(2):
        report = cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3]))
        assert {Path(odd.image).name for odd in report.odd} == set(noted)
        for odd in report.odd:
            assert noted[Path(odd.image).name] in odd.reason
            assert (odd.left_out, odd.samples) == (False, (f"about {Path(odd.image).name}",))
        assert tuple(odd_pictures(tmp_path / "cache")) == report.odd


def test_what_cannot_be_read_is_left_out_and_named(bench, tmp_path):
    samples = [*made(tmp_path, LEFT_OUT), good(tmp_path)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3], batch_size=2))
    assert (report.pictures, report.unique, report.encoded) == (len(samples), 1, 1)
    reasons = {Path(odd.image).name: odd.reason for odd in report.left_out}
    assert set(reasons) == set(LEFT_OUT)
    for name, (_, pattern) in LEFT_OUT.items():
        with pytest.raises(InputError, match=pattern):
            raise InputError(reasons[name])
    written = json.loads((tmp_path / "cache" / FILE).read_text())
    assert {row["image"]: row["reason"] for row in written} == {odd.image: odd.reason for odd in report.odd}


@pytest.mark.slow
def test_worker_processes_leave_out_what_threads_do(bench, tmp_path):
    samples = [*made(tmp_path, LEFT_OUT), good(tmp_path)]
    reports = [
        cache_features(*bench, samples, tmp_path / f"{workers}", FeatureOptions(layers=[3], workers=workers))
        for workers in (0, 2)
    ]
    assert reports[0].left_out == reports[1].left_out


def test_a_later_stage_names_what_was_left_out(bench, tmp_path):
    samples = [*made(tmp_path, {"truncated.png": LEFT_OUT["truncated.png"]}), good(tmp_path)]
    cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3]))
    features = CachedFeatures(FeatureStore.open(tmp_path / "cache"), (3,))
    features.check(samples[1:])
    with pytest.raises(CacheError, match=r"left out .*truncated\.png: .*truncated.*mend these files or remove"):
        features.check(samples)


def test_mended_files_leave_the_list_and_other_files_stay_on_it(bench, tmp_path):
    other = made(tmp_path, {"corrupt.png": LEFT_OUT["corrupt.png"]})
    samples = [*made(tmp_path, {"truncated.png": LEFT_OUT["truncated.png"]}), good(tmp_path)]
    cache_features(*bench, [*other, good(tmp_path)], tmp_path / "cache", FeatureOptions(layers=[3]))
    cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3]))
    assert {Path(odd.image).name for odd in odd_pictures(tmp_path / "cache")} == {"corrupt.png", "truncated.png"}
    Image.fromarray(NOISE).save(samples[0].image)
    assert cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3])).odd == ()
    assert {Path(odd.image).name for odd in odd_pictures(tmp_path / "cache")} == {"corrupt.png"}
    Image.fromarray(NOISE).save(other[0].image)
    cache_features(*bench, other, tmp_path / "cache", FeatureOptions(layers=[3]))
    assert not (tmp_path / "cache" / FILE).exists()


def test_copies_of_a_broken_picture_are_all_named(bench, tmp_path):
    truncated(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    samples = [Sample(name, "?", tmp_path / f"{name}.png") for name in "abb"]
    samples[2] = Sample("c", "?", tmp_path / "b.png")
    report = cache_features(*bench, [*samples, good(tmp_path)], tmp_path / "cache", FeatureOptions(layers=[3]))
    assert [(Path(odd.image).name, odd.samples) for odd in report.left_out] == [
        ("a.png", ("a",)),
        ("b.png", ("b", "c")),
    ]


def test_nothing_that_can_be_read_is_an_error(bench, tmp_path):
    samples = made(tmp_path, LEFT_OUT)
    lost = [Sample(f"x{number}", "?", tmp_path / f"lost{number}.png") for number in range(7)]
    with pytest.raises(InputError, match=r"7 pictures cannot be read \(.*lost0\.png.*lost4\.png.*; and 2 more\)"):
        cache_features(*bench, lost, tmp_path / "none", FeatureOptions(layers=[3]))
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match=rf"{len(LEFT_OUT)} pictures cannot be read"):
        cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3]))


def test_large_pictures_are_read_without_a_warning_and_gigantic_ones_left_out(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    Image.fromarray(NOISE[:60, :75]).save(tmp_path / "large.png")
    Image.fromarray(np.tile(NOISE, (2, 1, 1))).save(tmp_path / "gigantic.png")
    samples = [Sample(name, "?", tmp_path / f"{name}.png") for name in ("large", "gigantic")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = cache_features(*bench, samples, tmp_path / "cache", FeatureOptions(layers=[3]))
    assert [odd.samples for odd in report.left_out] == [("gigantic",)]
    assert "decompression bomb" in report.left_out[0].reason


def test_a_damaged_list_is_named(bench, tmp_path):
    (tmp_path / FILE).write_text("[{}]")
    with pytest.raises(CacheError, match=rf"cannot read .*{FILE}.*remove it"):
        odd_pictures(tmp_path)
