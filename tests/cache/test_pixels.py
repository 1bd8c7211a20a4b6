"""A cache of pixels: decoded once, and finished to what the processor makes, bit for bit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.pixels import cropped, finished, read_pixels
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.samples import Sample

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import tiny_llava_directory

PIXELS = FeatureOptions(pixels=True)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return AutoProcessor.from_pretrained(tiny_llava_directory(tmp_path_factory.mktemp("model")))


@pytest.fixture
def samples(tmp_path):
    noise, made = np.random.default_rng(0), []
    for number, size in enumerate([(40, 70, 3), (90, 30, 3), (56, 56, 3)]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8)).save(path)
        made.append(Sample(str(number), "What?", path))
    return [*made, made[0], Sample("text", "Why?")]


def test_pixels_are_what_the_processor_makes(processor, samples, tmp_path):
    report = cache_features(None, processor, samples, tmp_path / "cache", FeatureOptions(pixels=True, batch_size=2))
    assert (report.pictures, report.unique, report.encoded, report.skipped) == (4, 3, 3, 0)
    with FeatureStore.open(tmp_path / "cache") as store:
        for sample in samples[:3]:
            expected = processor.image_processor(images=[Image.open(sample.image)], return_tensors="pt")
            got = read_pixels(store, processor, image_key(sample.image))
            assert got.dtype == torch.float32
            assert torch.equal(got, expected["pixel_values"])
        assert store.form.tokens * store.form.token_bytes * 3 == report.bytes
        assert list(store.verify()) == []


def test_pixels_are_cached_once_and_mended(processor, samples, tmp_path):
    cache_features(None, processor, samples[:1], tmp_path / "cache", PIXELS)
    report = cache_features(None, processor, samples, tmp_path / "cache", PIXELS)
    assert (report.encoded, report.skipped) == (2, 1)
    shard = min((tmp_path / "cache").glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    report = cache_features(None, processor, samples, tmp_path / "cache", FeatureOptions(pixels=True, verify=True))
    assert (report.dropped, report.encoded) == (1, 1)


def test_pictures_that_cannot_be_read_are_named(processor, samples, tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(samples[0].image.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"torn\.png: .*; the 3 others are cached"):
        cache_features(
            None, processor, [*samples, Sample("x", "?", torn)], tmp_path / "cache", FeatureOptions(pixels=True)
        )
    with pytest.raises(InputError, match="none of the 1 samples has a picture"):
        cache_features(None, processor, samples[-1:], tmp_path / "cache", PIXELS)


class Tiled:
    """A processor that cuts every picture into tiles."""

    def __call__(self, images, **_):
        return {"pixel_values": torch.zeros(len(images), 5, 3, 28, 28, dtype=torch.uint8)}


class Jittered:
    """A processor that does more after cropping than scaling: it depends on where the picture came from."""

    def __call__(self, images, do_rescale=True, do_resize=True, **_):
        made = torch.zeros(len(images), 3, 28, 28)
        return {"pixel_values": made + do_resize if do_rescale else made.to(torch.uint8)}


@pytest.mark.parametrize(
    ("processor", "said"),
    [(Tiled(), r"Tiled makes pictures torch.uint8 \(2, 5, 3, 28, 28\)"), (Jittered(), "Jittered cannot be taken up")],
)
def test_processors_whose_pixels_cannot_be_cached_are_refused(processor, said, samples, tmp_path):
    with pytest.raises(CacheError, match=said):
        cache_features(None, processor, samples, tmp_path / "cache", PIXELS)
    assert not (tmp_path / "cache").exists()


def test_cropped_and_finished_work_on_batches(processor, samples):
    pictures = [Image.open(sample.image) for sample in samples[:3]]
    whole = processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(finished(processor, cropped(processor, pictures)), whole)
