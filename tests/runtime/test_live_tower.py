"""Fusion in the live tower: each picture with the mixture of the row that owns it, however it is called."""

import pytest
import torch
from reference_decoder import reference_rows
from runtime_cases import FULL, SCHEDULE, generated, model
from tiny_models import tiny_batch

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import prune

ALPHA = torch.rand(3, 5, generator=torch.Generator().manual_seed(2)).mul(4).softmax(-1)
ALPHA[1] = torch.tensor([0.0, 0.25, 0, 0, 0.75])


def fused_features(batch, owner):
    """Features of every picture, mixed by the row that owns it: captured, fused and projected by hand."""
    adapter = adapter_for(model())
    with torch.no_grad():
        layers_ILTC = adapter.capture(model(), batch["pixel_values"])
        return adapter.project(model(), fuse(layers_ILTC, ALPHA[owner]))


CASES = {
    "one each": ([1, 1, 1], [0, 1, 2]),
    "none and two": ([2, 0, 1], [0, 0, 2]),
    "only the last": ([0, 0, 1], [2]),
}


@pytest.mark.parametrize("case", CASES)
def test_generate_and_forward_mix_by_row(case):
    images, owner = CASES[case]
    batch = tiny_batch(model(), images=images)
    features = fused_features(batch, owner)
    rows = reference_rows(model(), batch, SCHEDULE, 0.5, features=features)
    with prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=ALPHA):
        assert generated(model(), batch) == [row.generate(6) for row in rows]
        with torch.no_grad():
            logits = model()(**batch).logits[:, -1]
    for row, reference in enumerate(rows):
        assert (logits[row] - reference.logits([])).abs().max() < 1e-4


def test_the_mixture_changes_the_answer():
    batch = tiny_batch(model())
    with prune(model(), schedule=FULL, rho=1.0, alpha_BL=ALPHA):
        mixed = generated(model(), batch)
    assert mixed != generated(model(), batch)


@pytest.mark.parametrize("rows", [1, 3])
def test_capture_sees_the_tower_as_it_is(rows):
    batch, adapter = tiny_batch(model()), adapter_for(model())
    with torch.no_grad():
        expected = adapter.capture(model(), batch["pixel_values"])
        with prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=ALPHA[:rows]):
            generated(model(), batch)
            assert torch.equal(adapter.capture(model(), batch["pixel_values"]), expected)
            features = model().get_image_features(batch["pixel_values"], return_dict=True).pooler_output
    assert torch.equal(torch.stack(features), torch.stack(fused_features(batch, [0, 1 % rows, 2 % rows])))


@pytest.mark.parametrize(
    "how", [{"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 3}]
)
@pytest.mark.parametrize("case", CASES)
def test_beams_and_samples_equal_precomputed_features(how, case):
    images, owner = CASES[case]
    batch = tiny_batch(model(), images=images)
    adapter, features = adapter_for(model()), fused_features(batch, owner)
    prompts = {key: value for key, value in batch.items() if key != "pixel_values"}
    torch.manual_seed(3)
    with prune(model(), schedule=SCHEDULE, rho=[0.2, 0.5, 0.8], alpha_BL=ALPHA):
        live = generated(model(), batch, **how)
    torch.manual_seed(3)
    with prune(model(), schedule=SCHEDULE, rho=[0.2, 0.5, 0.8]):
        given = generated(model(), {**prompts, "mm_encoder_outputs": adapter.encoder_outputs(features)}, **how)
    assert live == given


def test_prompts_given_by_position_are_seen():
    batch = tiny_batch(model(), images=[0, 1, 1])
    prompts = {key: value for key, value in batch.items() if key != "input_ids"}
    with prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=ALPHA):
        expected = model().generate(**batch, max_new_tokens=4)
        assert torch.equal(model().generate(batch["input_ids"], **prompts, max_new_tokens=4), expected)


def test_one_mixture_serves_all_pictures():
    batch = tiny_batch(model(), images=[1, 0, 2])
    with prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=ALPHA[:1]):
        one = generated(model(), batch)
    with prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=ALPHA[:1].expand(3, -1)):
        assert generated(model(), batch) == one


def test_alpha_must_fit_the_tower_and_the_batch():
    with (
        pytest.raises(ModelError, match="3 weights; expected 5"),
        prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=torch.ones(1, 3) / 3),
    ):
        pass
    batch = tiny_batch(model(), [(3, 7)] * 4)
    with (
        pytest.raises(ModelError, match="alpha has 3 values for a batch of 4 rows"),
        prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=ALPHA),
    ):
        model().generate(**batch, max_new_tokens=2)
