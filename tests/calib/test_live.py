"""Features without a cache of layers: the same bits as from a cache, so that the evaluator need not care."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from speaking_models import WORDS

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.live_features import LiveFeatures
from clasp_calib.calib.studies.contest import encoded
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.schedule import Schedule

LAYERS = (0, 1, 2, 3, 4)
ALPHA_ML = torch.tensor([[0, 0, 0, 1, 0], [0.2, 0.2, 0.2, 0.2, 0.2], [0, 0.5, 0, -0.25, 0]])


@pytest.fixture(scope="module")
def places(bench, tmp_path_factory):
    """What `open_source` is given for each kind; pictures are encoded one by one, as live ones are."""
    root = tmp_path_factory.mktemp("live")
    cache_features(
        bench.model, bench.processor, bench.samples, root / "cache", FeatureOptions(layers=LAYERS, batch_size=1)
    )
    cache_features(bench.model, bench.processor, bench.samples, root / "pixels", FeatureOptions(pixels=True))
    return {"cache": root / "cache", "live": None, "pixels": root / "pixels"}


def features(bench, places, kind):
    return open_source(places[kind], bench.model, bench.processor).at(LAYERS)


@pytest.mark.parametrize("kind", ["live", "pixels"])
def test_mixtures_have_the_bits_of_cached_ones(bench, places, kind):
    cached, other = features(bench, places, "cache"), features(bench, places, kind)
    other.check(bench.samples)
    for sample in bench.samples:
        assert torch.equal(cached.fused(sample, ALPHA_ML), other.fused(sample, ALPHA_ML))
        assert cached.key(sample) == other.key(sample)


def test_pictures_encoded_in_a_batch_differ_by_rounding_at_most(bench, places):
    """``bench.store`` was filled in batches of several pictures."""
    live = features(bench, places, "live")
    for sample in bench.samples[::3]:
        single = live.fused(sample, torch.eye(5)).half().view(torch.int16).int()
        batched = bench.store.read(live.key(sample), LAYERS).view(torch.int16).int()
        assert (single - batched).abs().max() <= 1


@pytest.mark.parametrize("kind", ["live", pytest.param("pixels", marks=pytest.mark.slow)])
def test_scores_are_those_of_the_cache(bench, places, kind):
    candidates = [Candidate("a", tuple(alpha), rho) for alpha in ALPHA_ML.tolist() for rho in (0.25, 1.0)]
    pruning = Pruning(Schedule(16, 8, (1, 2, 4), (9, 6, 3)))
    evaluators = [Evaluator(bench.model, bench.prompter, features(bench, places, k), 4) for k in ("cache", kind)]
    scored = []
    for sample in bench.samples:
        for name in ("exact", "exact_match"):
            asked = replace(sample, answers=WORDS, metric=name)
            cached, other = (evaluator.scores(asked, candidates, pruning) for evaluator in evaluators)
            assert cached == other
            scored += cached.score
    assert 0.05 < sum(scored) / len(scored) < 0.95, "these scores tell nothing"


def test_a_picture_is_encoded_once_for_questions_that_follow_one_another(bench, places, monkeypatch):
    live, runs = features(bench, places, "live"), []
    prepare = live._prepare
    monkeypatch.setattr(live, "_prepare", lambda *given: runs.append(1) or prepare(*given))
    for sample in bench.samples[:6]:
        live.fused(sample, ALPHA_ML)
    assert len(runs) == len({sample.image for sample in bench.samples[:6]}) == 2


def test_a_live_source_offers_spread_layers_and_any_other(bench, places):
    source = open_source(None, bench.model, bench.processor)
    assert (source.layers, source.precision, source.encoder) == ((1, 2, 3), "float16", bench.store.encoder)
    assert isinstance(source.at((0, 4)), LiveFeatures)
    with pytest.raises(CacheError, match=r"no layers \[5\]; expected some of 0 \(the embeddings\) to 4"):
        source.at((3, 5))


@pytest.mark.parametrize("kind", ["cache", "live", "pixels"])
def test_pictures_in_memory_are_as_good_as_files(bench, places, tmp_path, kind):
    asked, held = bench.samples[0], []
    for given in (Image.open(asked.image), asked.image.read_bytes()):
        held.append(replace(asked, image=given))
    if kind == "cache":
        cache_features(bench.model, bench.processor, held, tmp_path, FeatureOptions(layers=LAYERS, batch_size=1))
    elif kind == "pixels":
        cache_features(bench.model, bench.processor, held, tmp_path, FeatureOptions(pixels=True))
    found = features(bench, {kind: None if kind == "live" else tmp_path}, kind)
    found.check(held)
    expected = features(bench, places, "live").fused(asked, ALPHA_ML)
    assert all(torch.equal(found.fused(sample, ALPHA_ML), expected) for sample in held)
    # The bytes of a file are the file.
    assert found.key(held[1]) == image_key(asked.image) != found.key(held[0])
    assert torch.equal(
        encoded(bench.model, bench.processor, bench.prompter, held[0])["pixel_values"],
        encoded(bench.model, bench.processor, bench.prompter, asked)["pixel_values"],
    )


def test_odd_pictures_in_memory_are_named(bench, tmp_path):
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 9))
    held = [Sample("clear", "?", clear), Sample("torn", "?", bench.samples[0].image.read_bytes()[:3000])]
    report = cache_features(bench.model, bench.processor, [*bench.samples[:1], *held], tmp_path)
    assert [(odd.samples, odd.left_out) for odd in report.odd] == [(("torn",), True), (("clear",), False)]
    assert all(
        odd.image == f"memory:{sample.picture.key[:32]}" for odd, sample in zip(report.odd, held[::-1], strict=True)
    )
    cached = open_source(tmp_path, bench.model, bench.processor).at((1, 2, 3))
    with pytest.raises(CacheError, match=r"1 of 2 pictures are not cached \(first: memory:.*left out memory:"):
        cached.check(held)


def test_pictures_that_cannot_be_read_are_named(bench, places, tmp_path):
    live = features(bench, places, "live")
    lost = replace(bench.samples[0], image=tmp_path / "lost.png")
    with pytest.raises(InputError, match=r"the picture .*lost\.png cannot be read \(No such file"):
        live.check([*bench.samples, lost])
    text = replace(lost, image=tmp_path / "text.png")
    text.image.write_text("not a picture")
    with pytest.raises(InputError, match=r"1 pictures cannot be read \(.*text\.png"):
        live.check([*bench.samples, text])
    torn = replace(bench.samples[0], image=tmp_path / "torn.png")
    torn.image.write_bytes(bench.samples[0].image.read_bytes()[:3000])
    live.check([torn])
    with pytest.raises(InputError, match=r"the picture .*torn\.png cannot be read"):
        live.fused(torn, ALPHA_ML)
    pixels = features(bench, places, "pixels")
    pixels.check(bench.samples)
    with pytest.raises(
        CacheError, match=r"pixels of 1 of 1 pictures are not cached \(first: .*torn.png\); run .*--pixels"
    ):
        pixels.check([torn])
    with pytest.raises(InputError, match="sample 'none' has no picture"):
        live.check([replace(torn, id="none", image=None)])


def test_a_layer_that_cannot_be_rounded_is_named(bench, places, monkeypatch):
    live = features(bench, places, "live")
    adapter = type(adapter_for(bench.model))
    capture = adapter.capture

    def large(*given):
        captured_BLTC = capture(*given).clone()
        captured_BLTC[0, 2, 3, 4] = 1e6
        return captured_BLTC

    monkeypatch.setattr(adapter, "capture", large)
    with pytest.raises(CacheError, match=r"layer 2 of .*png has values up to 1e\+06, which float16 cannot hold; leave"):
        live.fused(bench.samples[0], ALPHA_ML)
