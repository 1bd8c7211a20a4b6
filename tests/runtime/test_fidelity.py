"""What must not change: the unpruned model, its own layer, and the model after the context is left."""

import pytest
import torch
from runtime_cases import FULL, SCHEDULE, fingerprint, generated, model
from tiny_models import tiny_batch

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pruner import prune


def one_hot(rows=1):
    adapter = adapter_for(model())
    alpha_BL = torch.zeros(rows, adapter.vision_layers + 1)
    alpha_BL[:, adapter.own_layer] = 1
    return alpha_BL


CASES = {
    "full budget": {"schedule": FULL, "rho": 0.5},
    "own layer": {"schedule": FULL, "rho": 0.5, "alpha_BL": one_hot()},
    "own layer a row": {"schedule": FULL, "rho": 0.5, "alpha_BL": one_hot(3)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("images", [[1, 1, 1], [1, 0, 2]])
def test_bit_exact(case, images):
    batch = tiny_batch(model(), images=images)
    with torch.no_grad():
        expected = model()(**batch).logits
        ids = generated(model(), batch)
        with prune(model(), **CASES[case]):
            assert (model()(**batch).logits - expected).abs().max() == 0.0
            assert generated(model(), batch) == ids


def test_rows_without_picture_are_bit_exact_when_others_are_pruned():
    batch = tiny_batch(model(), [(3, 7), (20, 6)], images=[1, 0])
    with torch.no_grad():
        expected = model()(batch["input_ids"][1:], attention_mask=batch["attention_mask"][1:]).logits
        with prune(model(), schedule=SCHEDULE, rho=0.5):
            got = model()(**batch).logits
            alone = model()(batch["input_ids"][1:], attention_mask=batch["attention_mask"][1:]).logits
    assert torch.equal(alone, expected)
    assert (got[1, -7:] - expected[0, -7:]).abs().max() < 1e-4


@pytest.mark.parametrize("rows", [1, 3])
def test_nothing_is_left_behind(rows):
    batch = tiny_batch(model())
    before = fingerprint(model())
    with torch.no_grad():
        expected = model()(**batch).logits
        with prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=one_hot(rows)):
            assert fingerprint(model()) != before
            model().generate(**batch, max_new_tokens=2)
        assert fingerprint(model()) == before
        assert (model()(**batch).logits - expected).abs().max() == 0.0


def test_a_full_budget_puts_nothing_on():
    before = fingerprint(model())
    with prune(model(), schedule=FULL, rho=0.5):
        assert fingerprint(model()) == before


def test_nothing_is_left_behind_by_an_error():
    batch = tiny_batch(model())
    before = fingerprint(model())
    batch["pixel_values"] = batch["pixel_values"][:2]
    with (
        pytest.raises(ModelError, match="48 visual tokens, the 2 pictures given make 32"),
        prune(model(), schedule=SCHEDULE, rho=0.5, alpha_BL=one_hot(3)),
    ):
        model().generate(**batch, max_new_tokens=2)
    assert fingerprint(model()) == before


def test_an_error_inside_a_forward_does_not_reach_the_next():
    batch = tiny_batch(model())
    broken = {**batch, "pixel_values": batch["pixel_values"][:2]}
    with torch.no_grad(), prune(model(), schedule=SCHEDULE, rho=0.5):
        expected = model()(**batch).logits
        with pytest.raises(ValueError, match="do not match"):
            model()(**broken)
        text = {"input_ids": torch.tensor([[1, 40, 41, 42]])}
        model()(**text)
        assert torch.equal(model()(**batch).logits, expected)


def test_pictureless_prompts_are_not_touched():
    ids = torch.tensor([[1, 40, 41, 42, 43]])
    with torch.no_grad():
        expected = model()(ids).logits
        with prune(model(), schedule=SCHEDULE, rho=0.5) as pruner:
            assert torch.equal(model()(ids).logits, expected)
            assert pruner.stats is None


def test_two_models_at_once():
    batch, other = tiny_batch(model()), model(4)
    with prune(model(), schedule=SCHEDULE, rho=0.5):
        alone = generated(model(), batch)
        with prune(other, schedule=SCHEDULE, rho=0.2):
            generated(other, batch)
            assert generated(model(), batch) == alone
        assert generated(model(), batch) == alone
