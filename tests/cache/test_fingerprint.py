"""The fingerprint: what moves which part of it, and what must not."""

import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PretrainedConfig

from clasp_calib.cache.fingerprint import encoder_fingerprint
from clasp_calib.common.errors import ModelError

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import tiny_llava_directory


def load(directory, dtype=torch.float16):
    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=dtype)
    return model, AutoProcessor.from_pretrained(directory)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """A checkpoint stored in float16, as LLaVA-1.5's is."""
    directory = tiny_llava_directory(tmp_path_factory.mktemp("halves"))
    model, _ = load(directory)
    model.save_pretrained(directory)
    return directory


def parts(fingerprint):
    return dict(part.split(":") for part in fingerprint.split())


def differing(one, other):
    return {name for name, value in parts(one).items() if parts(other)[name] != value}


def test_it_is_the_same_wherever_the_checkpoint_lies(halves, tmp_path):
    first = encoder_fingerprint(*load(halves))
    moved = shutil.copytree(halves, tmp_path / "moved")
    assert encoder_fingerprint(*load(moved)) == first
    assert set(parts(first)) == {"weights", "dtype", "tower", "pictures"}


def test_a_dtype_that_rounds_nothing_moves_only_the_dtype(halves):
    first = encoder_fingerprint(*load(halves))
    assert differing(first, encoder_fingerprint(*load(halves, torch.float32))) == {"dtype"}
    assert differing(first, encoder_fingerprint(*load(halves, torch.bfloat16))) == {"dtype", "weights"}


def test_each_part_answers_for_its_own(halves):
    model, processor = load(halves)
    first = encoder_fingerprint(model, processor)

    with torch.no_grad():
        model.lm_head.weight.add_(1)
    assert encoder_fingerprint(model, processor) == first

    other = copy.deepcopy(processor)
    other.image_processor.image_mean = [0.5, 0.5, 0.5]
    assert differing(first, encoder_fingerprint(model, other)) == {"pictures"}
    assert encoder_fingerprint(model, processor.image_processor) == first

    model.model.vision_tower.config.hidden_act = "gelu"
    assert differing(first, encoder_fingerprint(model, processor)) == {"tower"}
    model.model.vision_tower.config.hidden_act = "quick_gelu"

    parameters = list(model.model.vision_tower.parameters())
    for parameter in (parameters[0], parameters[-1]):
        with torch.no_grad():
            bits = parameter.view(torch.int16).reshape(-1)
            bits[-1] ^= 1
            assert differing(first, encoder_fingerprint(model, processor)) == {"weights"}
            bits[-1] ^= 1
    assert encoder_fingerprint(model, processor) == first


def test_models_that_cannot_be_fingerprinted_are_refused(halves):
    model, processor = load(halves)
    with pytest.raises(ModelError, match="not loaded"):
        encoder_fingerprint(model.to("meta"), processor)
    with pytest.raises(ModelError, match="no adapter"):
        encoder_fingerprint(PretrainedConfig(), processor)
