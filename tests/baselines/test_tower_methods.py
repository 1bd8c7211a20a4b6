"""Merging inside the tower, on a whole model: against the tower's blocks run one by one with the slow references."""

import sys
from pathlib import Path

import pytest
import reference_methods as reference
import torch

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from runtime_cases import model
from tiny_models import tiny_batch

from clasp_calib.baselines.ficoco_v import FiCoCoV
from clasp_calib.baselines.tome import ToMe
from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for

SETTINGS = {"vision_layers": 6, "vision_feature_layer": -2}


def attended(block, states_tC, sizes):
    """A block's attention on one image: states, keys (mean over heads), and logits (mean over heads)."""
    own, tokens = block.self_attn, len(states_tC)
    normed = block.layer_norm1(states_tC)
    query, key, value = (
        projection(normed).view(tokens, own.num_heads, -1).transpose(0, 1)
        for projection in (own.q_proj, own.k_proj, own.v_proj)
    )
    logits = query @ key.mT * own.head_dim**-0.5
    weights = (logits + torch.tensor(sizes).log()).softmax(-1)
    mixed = (weights @ value).transpose(0, 1).reshape(tokens, -1)
    return states_tC + own.out_proj(mixed), key.mean(0), logits.mean(0)


@torch.no_grad()
def slow_tower(llava, pixels, steps, method):
    """Projected tokens of one image, and their places, with ``steps`` merged away by block."""
    tower = llava.model.vision_tower
    states = tower.pre_layrnorm(tower.embeddings(pixels[None]))[0]
    places, sizes = list(range(-1, len(states) - 1)), [1.0] * len(states)
    for number, block in enumerate(tower.encoder.layers[: adapter_for(llava).own_layer]):
        states, key, logits = attended(block, states, sizes if method == "tome" else [1.0] * len(states))
        count = steps.get(number, 0)
        if count and method == "tome":
            made, sizes, places = reference.merge_pairs(
                states.double().numpy(), sizes, places, key.double().numpy(), count
            )
            states = torch.from_numpy(made).float()
        elif count:
            made, left = reference.ficoco_merge(
                states.double().numpy(), logits.double().numpy(), places[1:], count, 4, 0.35
            )
            states, places = torch.from_numpy(made).float(), [places[i] for i in left]
        states = states + block.mlp(block.layer_norm2(states))
    return llava.model.multi_modal_projector(states[None, 1:])[0], places[1:]


@pytest.mark.parametrize("method", [ToMe(rate=2), ToMe(rate=1.5), FiCoCoV(rate=4), FiCoCoV(rate=2.5, first_block=1)])
def test_what_enters_the_decoder_is_what_the_slow_tower_gives(method):
    llava = model(**SETTINGS)
    batch = tiny_batch(llava)
    steps = method.steps(adapter_for(llava))
    assert sum(steps.values()) in (8, 10, 10, 8)
    with method(llava, native="default") as run, torch.no_grad():
        output = llava.model.get_image_features(batch["pixel_values"], return_dict=True)
        llava(**batch)
    left = 16 - sum(steps.values())
    assert run.stats.tokens == ((left,) * 8,) * 3
    for row, features in enumerate(output.pooler_output):
        expected, places = slow_tower(llava, batch["pixel_values"][row], steps, method.name)
        entering = ~features.isinf().any(1)
        torch.testing.assert_close(features[entering], expected, atol=2e-4, rtol=2e-4)
        assert entering.nonzero().flatten().tolist() == sorted(places)


def test_a_tower_without_rate_is_left_alone():
    llava = model(**SETTINGS)
    batch = tiny_batch(llava)
    with torch.no_grad():
        expected = llava(**batch).logits
        with ToMe(rate=0)(llava, native="default"):
            assert torch.equal(llava(**batch).logits, expected)


def test_proportional_attention_needs_a_kernel_that_takes_a_bias():
    llava = model(**SETTINGS)
    config = llava.model.vision_tower.config
    config._attn_implementation, before = "flash_attention_2", config._attn_implementation
    try:
        with pytest.raises(ModelError, match="tome cannot run on this llava model: flash_attention_2"):
            ToMe()(llava, budget=8).__enter__()
    finally:
        config._attn_implementation = before
