"""A model with other weights than those of the calibration is told of, refused, or accepted by name."""

import warnings

import pytest
import torch
from made_artifacts import made
from tiny_models import tiny_batch, tiny_llava_directory
from transformers import AutoConfig, LlavaForConditionalGeneration

from clasp_calib import clasp
from clasp_calib.artifacts.checkpoint_digest import checkpoint_of, files_digest
from clasp_calib.artifacts.fits import check_fits
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.errors import ArtifactError, ClaspWarning


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The directory that an artifact is made for, and one with other weights of the same shape."""
    root = tmp_path_factory.mktemp("models")
    return [tiny_llava_directory(root / str(seed), seed=seed, decoder_layers=17) for seed in range(2)]


def loaded(place, dtype="float32"):
    return LlavaForConditionalGeneration.from_pretrained(place, dtype=dtype).eval()


def made_for(place, **changes):
    shape = model_shape(AutoConfig.from_pretrained(place))
    return made("8", shape=shape, fingerprint=shape.fingerprint, **changes)


@pytest.fixture
def artifact(models):
    return made_for(models[0], checkpoint=files_digest(models[0]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_own_model_fits_without_a_word(models, artifact, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_fits(artifact, loaded(models[0], dtype), strict=True) == "same"


def test_other_weights_are_told_of_or_refused_or_accepted(models, artifact):
    model = loaded(models[1])
    digest = checkpoint_of(model).digest
    with pytest.warns(ClaspWarning, match=f"calibrated with the checkpoint .* this model has {digest[:16]}") as told:
        assert check_fits(artifact, model) == "other"
    assert f"checkpoint='{digest[:16]}'" in str(told[0].message)
    with pytest.raises(ArtifactError, match=f"--checkpoint {digest[:16]}"):
        check_fits(artifact, model, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_fits(artifact, model, strict=True, checkpoint=digest[:16]) == "other"
    for wrong in (digest[:11], "0" * 16, ""):
        with pytest.raises(ArtifactError):
            check_fits(artifact, model, strict=True, checkpoint=wrong)


def test_weights_that_cannot_be_compared_are_told_of(models, artifact):
    model = loaded(models[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    with pytest.warns(ClaspWarning, match="cannot tell whether .* of another kind"):
        assert check_fits(artifact, model) == "untold"
    with pytest.raises(ArtifactError, match="cannot tell"):
        check_fits(artifact, model, strict=True)


def test_an_artifact_that_names_no_checkpoint_fits_but_not_strictly(models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_fits(made_for(models[0]), loaded(models[1])) == "unrecorded"
    with pytest.raises(ArtifactError, match="names no checkpoint"):
        check_fits(made_for(models[0]), loaded(models[1]), strict=True)


def test_clasp_warns_refuses_and_accepts(models, artifact):
    model = loaded(models[1])
    inputs = tiny_batch(model, ((3, 7),))
    how = {"budget": "8", "classes": "text"}
    with pytest.warns(ClaspWarning, match="calibrated with the checkpoint"), clasp(model, artifact, **how):
        model.generate(**inputs, max_new_tokens=1)
    with pytest.raises(ArtifactError, match="calibrated with"), clasp(model, artifact, **how, strict=True):
        pass
    accepted = checkpoint_of(model).digest[:16]
    with clasp(model, artifact, **how, strict=True, checkpoint=accepted) as pruner:
        model.generate(**inputs, max_new_tokens=1)
    assert pruner.stats.stages
