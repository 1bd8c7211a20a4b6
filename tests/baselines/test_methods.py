"""What every method must do on every model that it is defined for; the list is in `method_cases`."""

import re

import pytest
import torch
from method_cases import BUDGET, CASES, MODELS, NEXT, REFUSED, together
from runtime_cases import fingerprint, generated

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.adapters import adapter_for

TOKENS = 3
SHARE = 0.4
SOLVED_LONG = ("fitprune", "mustdrop")
"""Methods whose knobs take seconds to solve."""


def name(value):
    return getattr(value, "name", value)


def pairs():
    """In the fast tests each method runs on one of its models in turn, but for those whose knobs take long."""
    for place, case in enumerate(CASES):
        for number, model in enumerate(case.models):
            marks = [] if number == place % len(case.models) and case.name not in SOLVED_LONG else pytest.mark.slow
            yield pytest.param((case, model), id=f"{case.name}-{model}", marks=marks)


@pytest.fixture(params=pairs())
def pair(request):
    case, model = request.param
    return case, MODELS[model]


def visual_tokens(row, model):
    return sum(int((row["input_ids"] == token).sum()) for token in adapter_for(model).visual_token_ids.values())


def test_a_full_budget_changes_nothing(pair):
    case, made = pair
    model, inputs = made.model(), together(made.rows((1, 0, 2)))
    with torch.no_grad():
        expected = model(**inputs).logits
        with case.apply(made, budget="100%") as run:
            assert (model(**inputs).logits - expected).abs().max() == 0.0
    assert (run.native, run.decoder_flops(), run.vision_flops()) == ({}, (), None)


def test_a_batch_keeps_the_promised_tokens_and_equals_its_rows_one_by_one(pair):
    """Within half a token of a picture, which is what whole tokens allow; unless it depends on the picture."""
    case, made = pair
    model, rows = made.model(), made.rows((1, 0, 2))
    before = fingerprint(model)
    with case.apply(made) as run:
        ids = generated(model, together(rows), TOKENS)
        stats, flops = run.stats, run.decoder_flops(text_tokens=9)
        kept = [[stage.kept(row) for stage in stats.stages] for row in range(3)]
        for index, row in enumerate(rows):
            assert generated(model, row, TOKENS) == [ids[index]]
            if index != 1:  # which has no picture, so that nothing new is told of it
                assert [stage.kept(0) for stage in run.stats.stages] == kept[index]
    assert fingerprint(model) == before
    assert stats.seconds.get("selection", 0) > 0 or case.name in ("tome", "ficoco-v")
    for row, mean, pictures in zip(rows, stats.mean_tokens, (1, 0, 2), strict=True):
        assert case.calibrated or abs(mean - SHARE * visual_tokens(row, model)) <= 0.5 * pictures
    text = model.config.get_text_config()
    d, m = text.hidden_size, text.intermediate_size
    for layers, counted in zip(stats.tokens, flops, strict=True):
        assert len(layers) == text.num_hidden_layers
        assert counted == sum(2 * (4 * n * d**2 + 2 * n**2 * d + 3 * n * d * m) for n in (k + 9 for k in layers))
    for stages in (kept[0], kept[2]):
        assert all(later <= earlier for earlier, later in zip(map(set, stages), map(set, stages[1:]), strict=False))


def test_with_cache_equals_without(pair):
    case, made = pair
    if case.forgets:
        pytest.skip("without a cache there is nothing to forget; see the method's own test")
    model, inputs, ids = made.model(), together(made.rows((1, 1))), []
    with case.apply(made, prompt_lengths=inputs["input_ids"].shape[1]):
        for use_cache in (True, False):
            ids.append(generated(model, inputs, TOKENS, use_cache=use_cache, num_beams=2))
    assert ids[0] == ids[1]


def test_forward_sees_fewer_tokens_and_leaves_nothing_behind_also_after_an_error(pair):
    case, made = pair
    model, row = made.model(), made.rows((1,))[0]
    before = fingerprint(model)
    with torch.no_grad():
        plain = model(**row).logits[:, -1]
        with case.apply(made) as run:
            pruned = model(**row).logits
        with pytest.raises(TypeError), case.apply(made):
            generated(model, row, "one")
    assert (pruned[:, -1] - plain).abs().max() > 1e-3
    assert row["input_ids"].shape[1] - pruned.shape[1] == visual_tokens(row, model) - run.stats.tokens[0][-1]
    assert fingerprint(model) == before


@pytest.mark.parametrize(("case", "model"), REFUSED, ids=name)
def test_a_model_that_lacks_what_the_method_needs_is_refused_by_name(case, model):
    with pytest.raises(ModelError, match=rf"^{re.escape(case.name)} cannot run on this {model} model: "):
        case.method(MODELS[model].model(), budget=BUDGET).__enter__()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_budgets_that_cannot_be_are_refused(case):
    model = MODELS["llava"].model()
    for wrong in ({"budget": 16}, {"budget": 40}, {"budget": "0"}, {}, {"budget": 4, "native": "default"}):
        with pytest.raises(BudgetError):
            case.method(model, **wrong).__enter__()
    with pytest.raises(BudgetError, match=rf"{re.escape(case.name)} has no native setting 'never'; it has default"):
        case.method(model, native="never").__enter__()
    if NEXT in case.models:
        with pytest.raises(BudgetError, match="percentage"):
            case.method(MODELS[NEXT].model(), budget=7).__enter__()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_native_setting_can_be_named(case):
    for native in ("default", *case.method.published):
        assert isinstance(case.method.with_native(native), type(case.method))
    assert case.method.paper.startswith("arXiv ") or case.method.paper == "control"
    assert case.method.semantics


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in SOLVED_LONG], ids=name)
def test_two_at_once_are_refused(case):
    with (
        case.apply(MODELS["llava"]),
        pytest.raises(ModelError, match="pruned already"),
        case.apply(MODELS["llava"]),
    ):
        pass
