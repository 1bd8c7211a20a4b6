"""Features from Python: the command's, with checks of the model before any picture is encoded."""

import json

import pytest
from PIL import Image
from speaking_models import load_speaking, speaking_llava_directory, write_picture

from clasp_calib.api.caching import FeatureOptions, cache_features, plan_features, starts_for
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common import contents
from clasp_calib.common.errors import BudgetError, InputError, ModelError
from clasp_calib.common.places import Places
from clasp_calib.common.samples import Sample


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    return load_speaking(speaking_llava_directory(tmp_path_factory.mktemp("model"), decoder_layers=17))


@pytest.fixture
def samples(tmp_path):
    picture = write_picture(tmp_path / "a.png", 0)
    return [Sample("a", "What?", picture), Sample("b", "Where?", Image.open(picture)), Sample("c", "Hm?")]


def test_a_run_remembers_which_file_holds_which_picture(speaking, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_SETTLED", 0)
    monkeypatch.setattr(contents, "_known", {})
    run, options = tmp_path / "run", FeatureOptions(layers=[1])
    cache_features(*speaking, samples, run=run, options=options)
    contents._known.clear()
    monkeypatch.setattr(contents, "picture_file", lambda path: pytest.fail(f"{path} is read again"))
    assert cache_features(*speaking, samples, run=run, options=options).skipped == 2


def test_features_are_cached_under_the_run(speaking, samples, tmp_path):
    report = cache_features(*speaking, samples, run=tmp_path / "run", options=FeatureOptions(layers=[1, 3]))
    assert (report.pictures, report.encoded, report.layers) == (2, 2, (1, 3))
    assert cache_features(*speaking, samples, run=tmp_path / "run", options=FeatureOptions(layers=[1, 3])).encoded == 0
    assert FeatureStore.open(tmp_path / "run" / "cache").layers == (1, 3)
    told = json.loads((tmp_path / "run" / "config.json").read_text())["cache-features"]
    assert (told["layers"], told["samples"]) == ([1, 3], "the list of samples")


def test_a_cache_may_be_anywhere_and_its_cost_is_told_before(speaking, samples, tmp_path):
    plan = plan_features(*speaking, samples, run=Places(features=tmp_path / "cache"))
    assert (plan.unique, plan.cached) == (2, 0)
    cache_features(*speaking, samples, run=Places(features=tmp_path / "cache"))
    assert plan_features(*speaking, samples, run=Places(features=tmp_path / "cache")).cached == 2
    with pytest.raises(InputError, match=r"a cache needs a place; give a run directory, or Places"):
        cache_features(*speaking, samples, run=Places())


def test_a_short_decoder_is_told_of_before_pictures_are_encoded(samples, tmp_path, capsys):
    model, processor = load_speaking(speaking_llava_directory(tmp_path / "short", decoder_layers=8))
    cache_features(model, processor, samples, run=tmp_path / "run")
    assert "the decoder has 8 layers, too few for the default stages; calibrate it with others, such as --starts" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert starts_for(model) == (1, 2, 4)


def test_a_model_that_cannot_be_pruned_is_refused_before_pictures_are_encoded(samples, tmp_path):
    model, processor = load_speaking(speaking_llava_directory(tmp_path / "tiny", decoder_layers=3))
    with pytest.raises(BudgetError, match="do not fit a decoder of 3 layers"):
        cache_features(model, processor, samples, run=Places(features=tmp_path / "cache"))
    model.config.get_text_config().layer_types = ["sliding_attention"] * 3
    with pytest.raises(ModelError, match="sliding"):
        cache_features(model, processor, samples, run=Places(features=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
