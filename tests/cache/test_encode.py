"""Which pictures are encoded, with which bits, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from clasp_calib.cache import recipe
from clasp_calib.cache.encode import auto_layers, cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.fingerprint import encoder_fingerprint
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import tiny_llava_directory

LAYERS = (0, 2, 3, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_llava_directory(tmp_path_factory.mktemp("checkpoint"))


def load(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture
def model(checkpoint):
    return load(checkpoint)[0]


@pytest.fixture
def processor(checkpoint):
    return load(checkpoint)[1]


@pytest.fixture
def samples(tmp_path):
    """Five samples on four files, of which two have the same bytes, and one sample without a picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = noise.integers(0, 256, (40, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "copy of a.png").write_bytes((folder / "a.png").read_bytes())
    names = ("a", "b", "a", "copy of a", "c")
    made = [Sample(str(i), "What?", folder / f"{name}.png") for i, name in enumerate(names)]
    return [*made, Sample("text", "Why?")]


def direct(model, processor, path: Path) -> torch.Tensor:
    """One picture through the unmodified model's tower: [L_v + 1, T, C], class token cut."""
    pixels = processor.image_processor(images=[Image.open(path).convert("RGB")], return_tensors="pt").pixel_values
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    return torch.stack(states, 1)[0, :, 1:]


def test_every_distinct_picture_is_encoded_once_and_rightly(model, processor, samples, tmp_path):
    report = cache_features(model, processor, samples, tmp_path / "cache", FeatureOptions(layers=LAYERS, batch_size=2))
    assert (report.pictures, report.unique, report.encoded, report.skipped) == (5, 3, 3, 0)
    assert report.layers == LAYERS
    assert report.bytes == 3 * 4 * 16 * 16 * 2
    with FeatureStore.open(tmp_path / "cache", encoder=encoder_fingerprint(model, processor)) as store:
        assert (store.layers, store.form.tokens, store.form.channels) == (LAYERS, 16, 16)
        for sample in samples[:5]:
            expected = direct(model, processor, sample.image)
            got = store.read(image_key(sample.image), (4, 0, 3))
            torch.testing.assert_close(got.float(), expected[[4, 0, 3]], rtol=6e-4, atol=1e-5)
    held = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.h5"))
    assert report.bytes <= held < report.bytes + 16384


def test_a_one_hot_mixture_of_cached_features_projects_like_the_model(model, processor, samples, tmp_path):
    cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))
    adapter = adapter_for(model)
    with FeatureStore.open(tmp_path) as store:
        own = store.read(image_key(samples[1].image), [adapter.own_layer]).float()
    pixels = processor.image_processor(images=[Image.open(samples[1].image)], return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = model.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output[0]
        torch.testing.assert_close(adapter.project(model, own)[0], expected, rtol=5e-3, atol=2e-3)


def test_a_second_run_encodes_only_what_is_new(model, processor, samples, tmp_path, monkeypatch):
    cache_features(model, processor, samples[:1], tmp_path, FeatureOptions(layers=LAYERS))
    seen = []
    capture = recipe.states_of
    monkeypatch.setattr(recipe, "states_of", lambda m, batch, at: seen.append(len(batch)) or capture(m, batch, at))
    report = cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))
    assert (report.encoded, report.skipped, seen) == (2, 1, [2])
    report = cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))
    assert (report.encoded, report.skipped, seen) == (0, 3, [2])
    report = cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=(1,)))
    assert (report.encoded, report.skipped, seen) == (3, 0, [2, 3])
    assert FeatureStore.open(tmp_path).layers == (0, 1, 2, 3, 4)


def test_verify_encodes_again_what_is_damaged(model, processor, samples, tmp_path):
    cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))
    shard = next(tmp_path.glob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS)).encoded == 0
    report = cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS, verify=True))
    assert (report.dropped, report.encoded) == (1, 1)
    assert not list(FeatureStore.open(tmp_path).verify())


def test_pictures_are_turned_upright(model, processor, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    upright, turned = tmp_path / "upright.png", tmp_path / "turned.png"
    Image.fromarray(pixels).save(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(np.rot90(pixels).copy()).save(turned, exif=exif)
    both = [Sample("1", "?", upright), Sample("2", "?", turned)]
    assert cache_features(model, processor, both, tmp_path / "cache", FeatureOptions(layers=[3])).unique == 2
    with FeatureStore.open(tmp_path / "cache") as store:
        assert np.array_equal(store.read(image_key(upright), [3]), store.read(image_key(turned), [3]))


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_a_layer_that_float16_cannot_hold_is_named(checkpoint, samples, tmp_path, monkeypatch, value):
    model, processor = load(checkpoint)
    said = "values up to 1e\\+05, which float16 cannot" if value == 1e5 else "numbers that are not finite, as the tower"
    adapter = type(adapter_for(model))
    original = adapter.capture

    def capture(self, model, pixels, modality, layers):
        captured_BLTC = original(self, model, pixels, modality, layers)
        if 2 in layers:
            captured_BLTC[1, layers.index(2), 5, 7] = value
        return captured_BLTC

    monkeypatch.setattr(adapter, "capture", capture)
    with pytest.raises(CacheError, match=rf"layer 2 of .*b\.png has {said}"):
        cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))
    assert cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=(0, 3))).encoded == 3


def test_a_batch_that_does_not_fit_says_so(model, processor, samples, tmp_path, monkeypatch):
    def capture(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(adapter_for(model)), "capture", capture)
    with pytest.raises(CacheError, match=r"3 pictures at once do not fit on cpu .*smaller batch size"):
        cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))


def test_what_cannot_be_asked_for_is_refused(model, processor, samples, tmp_path):
    with pytest.raises(CacheError, match=r"layers \(--layers\) is \[2, 5\]; expected some of 0 .* to 4"):
        cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=(5, 2)))
    with pytest.raises(InputError, match="none of the 1 samples has a picture"):
        cache_features(model, processor, samples[-1:], tmp_path, FeatureOptions(layers=LAYERS))


def test_another_dtype_is_another_encoder(model, processor, samples, tmp_path):
    cache_features(model, processor, samples, tmp_path, FeatureOptions(layers=LAYERS))
    with pytest.raises(CacheError, match=r"dtype:float32 .* asked for .* dtype:bfloat16 .* another directory"):
        cache_features(model.to(torch.bfloat16), processor, samples, tmp_path, FeatureOptions(layers=LAYERS))


@pytest.mark.parametrize(
    ("vision_layers", "own", "taps", "expected"),
    [
        (24, 23, (), (3, 9, 15, 20, 23)),
        (8, 7, (), (1, 3, 5, 7)),
        (12, 12, (), (2, 5, 8, 10, 12)),
        (4, 3, (), (1, 2, 3)),
        (1, 0, (), (0, 1)),
        (27, 27, (9, 17, 25), (3, 9, 17, 25, 27)),
        (24, 24, (6, 12, 18), (3, 6, 12, 18, 24)),
        (24, 24, (24,), (3, 9, 15, 20, 24)),
        (3, 3, (1, 2, 3), (1, 2, 3)),
    ],
)
def test_auto_layers(vision_layers, own, taps, expected):
    assert auto_layers(vision_layers, own, taps) == expected


def test_auto_layers_span_the_tower_and_hold_the_own_layer():
    for vision_layers in range(1, 60):
        for own in range(vision_layers + 1):
            layers = auto_layers(vision_layers, own)
            assert own in layers
            assert list(layers) == sorted(set(layers))
            assert 0 <= layers[0] <= max(1, vision_layers / 4)
            assert layers[-1] <= vision_layers
            assert layers[-1] >= 2 * vision_layers // 3
            assert len(layers) <= 5
    with pytest.raises(CacheError, match="own layer 25 of a tower with layers 0 to 24"):
        auto_layers(24, 25)
