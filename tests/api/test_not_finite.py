"""Numbers that are not finite stop every entry point, which says where they are and leaves nothing that looks right."""

import copy

import pytest
import torch

import clasp_calib as cc


def spoilt(bench, place, value=torch.nan):
    model = copy.deepcopy(bench.model)
    with torch.no_grad():
        model.get_parameter(place).view(-1)[0] = value
    return model


HEAD = "lm_head.weight"
CALLS = {
    "calibrate": lambda m, bench, artifact, options: cc.calibrate(
        m, bench.processor, bench.samples, [6], options=options
    ),
    "evaluate": lambda m, bench, artifact, options: cc.evaluate(m, bench.processor, artifact, bench.samples),
    "ablate": lambda m, bench, artifact, options: cc.ablate("rho", m, bench.processor, artifact, bench.samples),
    "compare": lambda m, bench, artifact, options: cc.compare(m, bench.processor, artifact, bench.samples, "divprune"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_sample_is_named(bench, artifact, options, name):
    with pytest.raises(cc.errors.ModelError, match=r"sample '\w+-\d-\w+': the model's logits are not finite"):
        CALLS[name](spoilt(bench, HEAD), bench, artifact, options)


def test_an_answer_is_not_given(bench, artifact):
    with pytest.raises(cc.errors.ModelError, match="this question: the model's logits are not finite"):
        cc.generate(spoilt(bench, HEAD), bench.processor, bench.samples[0].image, "How many?", artifact=artifact)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_a_tower_names_layer_and_picture_and_caches_nothing(bench, tmp_path, precision):
    model = spoilt(bench, "model.vision_tower.encoder.layers.1.mlp.fc1.weight", torch.inf)
    options = cc.FeatureOptions(layers=[1, 2, 3], precision=precision)
    with pytest.raises(cc.errors.CacheError, match=r"layer 2 of .*\.png has numbers that are not finite"):
        cc.cache_features(model, bench.processor, bench.samples, run=tmp_path, options=options)
    report = cc.cache_features(bench.model, bench.processor, bench.samples, run=tmp_path / "whole", options=options)
    assert report.skipped == 0


def test_a_tower_without_a_cache(bench, artifact):
    model = spoilt(bench, "model.vision_tower.encoder.layers.0.mlp.fc1.weight", torch.inf)
    with pytest.raises(cc.errors.CacheError, match=r"layer \d of .*\.png has numbers that are not finite"):
        cc.evaluate(model, bench.processor, artifact, bench.samples)
