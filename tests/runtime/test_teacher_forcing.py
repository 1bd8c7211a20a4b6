"""What scoring relies on: one forward over prompt and answer is what generating step by step would see."""

import pytest
import torch
from reference_decoder import reference_rows
from runtime_cases import FULL, LATER, SCHEDULE, generated, model, pruned_under, with_answers
from tiny_models import tiny_batch
from transformers import DynamicCache

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import prune

RHO = [0.2, 0.5, 1.0]


@pytest.mark.parametrize("schedule", [SCHEDULE, LATER])
@pytest.mark.parametrize("settings", [{}, {"raters": "all"}, {"positions": "compact"}])
@pytest.mark.parametrize("seed", [1, 2])
def test_argmax_over_prompt_and_answer_is_the_greedy_answer(schedule, settings, seed):
    batch, tokens = tiny_batch(model(), seed=seed), 6
    length = batch["input_ids"].shape[1]
    with (
        torch.no_grad(),
        pruned_under(model(), schedule=schedule, rho=RHO, prompt_lengths=length, **settings) as pruner,
    ):
        answers = generated(model(), batch, tokens)
        kept = [stage.patches_BK for stage in pruner.stats.stages]
        logits = model()(**with_answers(batch, answers), use_cache=False, logits_to_keep=tokens + 1).logits
        for stage, patches_BK in zip(pruner.stats.stages, kept, strict=True):
            assert torch.equal(stage.patches_BK, patches_BK)
    assert logits[:, :-1].argmax(-1).tolist() == answers


def test_logits_of_given_answers_equal_the_reference():
    batch, answers = tiny_batch(model()), [[50, 60, 70], [80, 90, 100], [33, 44, 55]]
    length = batch["input_ids"].shape[1]
    with torch.no_grad(), prune(model(), schedule=SCHEDULE, rho=RHO, prompt_lengths=[length] * 3):
        logits = model()(**with_answers(batch, answers), use_cache=False, logits_to_keep=4).logits
    for row, reference in enumerate(reference_rows(model(), batch, SCHEDULE, RHO)):
        for step in range(4):
            expected = reference.logits(answers[row][:step])
            assert (logits[row, step] - expected).abs().max() < 1e-4


def test_answers_would_rate_if_they_were_not_told_apart():
    batch = tiny_batch(model())
    forced = with_answers(batch, [[50, 60, 70]] * 3)
    kept = []
    for prompt_lengths in (None, batch["input_ids"].shape[1]):
        with (
            torch.no_grad(),
            pruned_under(model(), schedule=SCHEDULE, rho=1.0, raters="all", prompt_lengths=prompt_lengths) as pruner,
        ):
            model()(**forced, use_cache=False)
        kept.append([pruner.stats.stages[-1].kept(row) for row in range(3)])
    assert kept[0] != kept[1]


def candidates(mixtures=3):
    """One sample, several mixtures of its layers as rows of a batch."""
    adapter = adapter_for(model())
    batch = tiny_batch(model(), [(3, 7)])
    generator = torch.Generator().manual_seed(0)
    alpha_ML = torch.rand(mixtures, adapter.vision_layers + 1, generator=generator).softmax(-1)
    with torch.no_grad():
        layers_BLTC = adapter.capture(model(), batch["pixel_values"])
        features = adapter.project(model(), fuse(layers_BLTC.expand(mixtures, -1, -1, -1), alpha_ML))
    forced = with_answers(batch, [[50, 60, 70]])
    del forced["pixel_values"]
    rows = {key: value.repeat(mixtures, 1) for key, value in forced.items()}
    return adapter, features, rows, batch["input_ids"].shape[1]


def test_fanned_out_candidates_equal_separate_ones():
    adapter, features, rows, length = candidates()
    fan, rho = [0, 0, 1, 2, 2, 2], [0.1, 0.9, 0.5, 0.0, 0.4, 1.0]
    settings = {"schedule": LATER, "prompt_lengths": length}
    call = {"use_cache": False, "logits_to_keep": 4}
    with torch.no_grad():
        with prune(model(), rho=rho, fan=fan, **settings) as pruner:
            outputs = adapter.encoder_outputs(features)
            together = model()(**rows, mm_encoder_outputs=outputs, **call).logits
        stats = pruner.stats
        assert len(together) == len(stats.tokens) == 6
        for index, (row, share) in enumerate(zip(fan, rho, strict=True)):
            one = {key: value[row : row + 1] for key, value in rows.items()}
            with prune(model(), rho=share, **settings) as pruner:
                outputs = adapter.encoder_outputs([features[row]])
                alone = model()(**one, mm_encoder_outputs=outputs, **call).logits
            assert (together[index] - alone[0]).abs().max() < 1e-4
            for stage, expected in zip(stats.stages, pruner.stats.stages, strict=True):
                assert stage.kept(index) == expected.kept(0)
                assert stage.pivots(index) == expected.pivots(0)


def test_a_full_budget_fans_out_too():
    adapter, features, rows, _ = candidates()
    call = {"use_cache": False, "logits_to_keep": 4}
    with torch.no_grad():
        expected = model()(**rows, mm_encoder_outputs=adapter.encoder_outputs(features), **call).logits
        with prune(model(), schedule=FULL, rho=[0.1, 0.9, 0.5, 0.5], fan=[0, 2, 2, 1]):
            got = model()(**rows, mm_encoder_outputs=adapter.encoder_outputs(features), **call).logits
    assert (got - expected[[0, 2, 2, 1]]).abs().max() < 1e-4


def test_a_cached_prefix_leaves_the_prompt_where_it_is():
    batch = tiny_batch(model(), [(6, 7)])
    forced = with_answers(batch, [[50, 60, 70]])
    settings = {"schedule": SCHEDULE, "rho": 0.5, "raters": "all", "prompt_lengths": batch["input_ids"].shape[1]}
    with torch.no_grad(), pruned_under(model(), **settings) as pruner:
        expected = model()(**forced, logits_to_keep=4).logits
        kept = [stage.kept(0) for stage in pruner.stats.stages]
        prefix = model()(forced["input_ids"][:, :5]).past_key_values
        rest = {**forced, "input_ids": forced["input_ids"][:, 5:], "position_ids": forced["position_ids"][:, 5:]}
        got = model()(**rest, past_key_values=prefix, logits_to_keep=4).logits
    assert [stage.kept(0) for stage in pruner.stats.stages] == kept
    assert (got - expected).abs().max() < 1e-4


@pytest.mark.parametrize("prefix", [0, 4])
def test_a_cache_fans_out_with_its_candidates(prefix):
    """The answers that follow, given or generated, are those of candidates that stood alone."""
    adapter, features, rows, length = candidates()
    fan, rho = [0, 0, 1, 2], [0.1, 0.9, 0.5, 0.0]
    prompt = rows["input_ids"][:, :length]
    with torch.no_grad():
        cache = model()(prompt[:, :prefix]).past_key_values if prefix else DynamicCache()
        with prune(model(), schedule=LATER, rho=rho, fan=fan, prompt_lengths=length):
            outputs = adapter.encoder_outputs(features)
            forced = {"input_ids": rows["input_ids"][:, prefix:], "attention_mask": rows["attention_mask"]}
            model()(**forced, mm_encoder_outputs=outputs, past_key_values=cache)
            cache.crop(length - rows["input_ids"].shape[1])
            other = model()(torch.tensor([[90, 91]] * 4), past_key_values=cache).logits
            cache.crop(-3)
            whole = prompt[:1].expand(4, -1)
            said = generated(model(), {"input_ids": whole, "attention_mask": whole * 0 + 1}, past_key_values=cache)
        for index, (row, share) in enumerate(zip(fan, rho, strict=True)):
            one = {"input_ids": prompt[:1], "attention_mask": prompt[:1] * 0 + 1}
            with prune(model(), schedule=LATER, rho=share, prompt_lengths=length):
                outputs = adapter.encoder_outputs([features[row]])
                assert generated(model(), {**one, "mm_encoder_outputs": outputs}) == [said[index]]
                outputs, ids = adapter.encoder_outputs([features[row]]), torch.tensor([[*prompt[0].tolist(), 90, 91]])
                alone = model()(ids, mm_encoder_outputs=outputs, logits_to_keep=2, use_cache=False).logits
            assert (other[index] - alone[0]).abs().max() < 1e-4
    assert len(set(map(tuple, said))) > 1


def test_a_fan_needs_rows_that_exist():
    adapter, features, rows, _ = candidates()
    outputs = adapter.encoder_outputs(features)
    with (
        prune(model(), schedule=LATER, rho=0.5, fan=[0, 3]),
        torch.no_grad(),
        pytest.raises(ModelError, match="row 3 of a batch of 3"),
    ):
        model()(**rows, mm_encoder_outputs=outputs)


def test_generate_cannot_begin_with_a_fan():
    adapter, features, rows, _ = candidates()
    outputs = adapter.encoder_outputs(features)
    with (
        prune(model(), schedule=LATER, rho=0.5, fan=[0, 1, 2, 2]),
        pytest.raises(ModelError, match="generate does not expect; call the model on the prompts first"),
    ):
        model().generate(**rows, mm_encoder_outputs=outputs)
