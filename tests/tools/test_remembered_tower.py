"""A tower that remembers changes no bit of what any method makes of a picture."""

from copy import deepcopy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clasp_calib.baselines.registry import METHODS
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.tower import fused_tower
from tools.reference.remembered_tower import remember_tower


@pytest.fixture(scope="module")
def models():
    """The embedded model, and the same with a tower that remembers."""
    model, processor = load_model(str(MODEL), "cpu", "float32")
    remembering = deepcopy(model)
    remember_tower(remembering)
    return model, remembering, processor


@pytest.fixture(scope="module")
def pictures(models):
    made = torch.randint(0, 256, (2, 336, 336, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    text = PROMPT.format(question="what color is the ball ?")
    return [models[2](images=picture.numpy(), text=text, return_tensors="pt") for picture in made]


def test_a_picture_that_was_seen_costs_the_tower_nothing(models, pictures):
    def flops(model, inputs):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            adapter_for(model).vision_tower(model)(inputs["pixel_values"])
        return counter.get_total_flops()

    first, again, other = [flops(models[1], pictures[number]) for number in (0, 0, 1)]
    assert first == other == flops(models[0], pictures[0])
    assert again < 0.1 * first


@pytest.mark.parametrize("name", ["hiprune", "tome", "fastv"])
def test_a_method_sees_what_it_would_see(models, pictures, name):
    """Of each kind: which looks at the tower's attention or keys, merges inside it, or leaves it alone."""

    @torch.inference_mode()
    def logits(model):
        with METHODS[name]()(model, budget=192):
            return [model(**pictures[place]).logits for place in (0, 0, 1, 0)]

    for one, other in zip(logits(models[0]), logits(models[1]), strict=True):
        assert torch.equal(one, other)


def test_a_mixture_is_of_the_same_states(models, pictures):
    def features(model, place, layer):
        alpha_BL = torch.eye(adapter_for(model).vision_layers + 1)[layer : layer + 1]
        with torch.inference_mode(), fused_tower(model, adapter_for(model), alpha_BL):
            return model.model.get_image_features(pictures[place]["pixel_values"]).pooler_output[0]

    for place, layer in ((0, 3), (0, 5), (1, 5), (0, 3)):
        assert torch.equal(*(features(model, place, layer) for model in models[:2]))
