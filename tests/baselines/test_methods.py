"""What every method must do on every model that it is defined for; the list is in `method_cases`."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "runtime"))

from architectures import CASES as MODELS
from architectures import together
from method_cases import BUDGET, CASES, PAIRS, REFUSED
from runtime_cases import fingerprint, generated

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.runtime.adapters import adapter_for

TOKENS = 4
SHARE = 0.4


def name(value):
    return getattr(value, "name", value)


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(map(name, pair)))
def pair(request):
    case, model = request.param
    return case, MODELS[model]


def visual_tokens(row, model):
    return sum(int((row["input_ids"] == token).sum()) for token in adapter_for(model).visual_token_ids.values())


def test_a_full_budget_changes_nothing(pair):
    case, made = pair
    model, inputs = made.model(), together(made.rows((1, 0, 2)))
    before = fingerprint(model)
    with torch.no_grad():
        expected, ids = model(**inputs).logits, generated(model, inputs, TOKENS)
        with case.method(model, budget="100%"):
            assert (model(**inputs).logits - expected).abs().max() == 0.0
            assert generated(model, inputs, TOKENS) == ids
    assert fingerprint(model) == before


def test_layers_work_on_the_promised_number_of_tokens(pair):
    """Within half a token of a picture in the mean, in every row, which is what whole tokens allow."""
    case, made = pair
    model, rows = made.model(), made.rows((1, 0, 2))
    with case.method(model, budget=BUDGET) as run:
        generated(model, together(rows), 1)
    for row, mean, pictures in zip(rows, run.stats.mean_tokens, (1, 0, 2), strict=True):
        assert abs(mean - SHARE * visual_tokens(row, model)) <= 0.5 * pictures
    assert [len(tokens) for tokens in run.stats.tokens] == [adapter_for(model).decoder_layers] * 3


def test_a_batch_equals_its_rows_one_by_one(pair):
    case, made = pair
    model, rows = made.model(), made.rows((1, 0, 2))
    with case.method(model, budget=BUDGET) as run:
        together_ids = generated(model, together(rows), TOKENS)
        kept = [[stage.kept(row) for stage in run.stats.stages] for row in range(3)]
        for index, row in enumerate(rows):
            assert generated(model, row, TOKENS) == [together_ids[index]]
            if index != 1:  # which has no picture, so that nothing new is told of it
                assert [stage.kept(0) for stage in run.stats.stages] == kept[index]


def test_with_cache_equals_without(pair):
    case, made = pair
    model, inputs = made.model(), together(made.rows((1, 1, 1)))
    ids = []
    with case.method(model, budget=BUDGET, prompt_lengths=inputs["input_ids"].shape[1]):
        for use_cache in (True, False):
            ids.append(generated(model, inputs, TOKENS, use_cache=use_cache, num_beams=2))
    assert ids[0] == ids[1]


def test_pruning_changes_what_the_model_sees(pair):
    case, made = pair
    model, row = made.model(), made.rows((1,))[0]
    with torch.no_grad():
        plain = model(**row).logits[:, -1]
        with case.method(model, budget=BUDGET):
            pruned = model(**row).logits
    assert (pruned[:, -1] - plain).abs().max() > 1e-3
    assert pruned.shape[1] < row["input_ids"].shape[1]


def test_nothing_is_left_on_the_model_also_after_an_error(pair):
    case, made = pair
    model, inputs = made.model(), together(made.rows((1,)))
    before = fingerprint(model)
    with pytest.raises(TypeError), case.method(model, budget=BUDGET):
        generated(model, inputs, "one")
    assert fingerprint(model) == before
    with case.method(model, budget=BUDGET):
        model.generate(**inputs, max_new_tokens=1)
    assert fingerprint(model) == before


def test_costs_are_reported(pair):
    case, made = pair
    model, row = made.model(), made.rows((1,))[0]
    with case.method(model, budget=BUDGET) as run:
        generated(model, row, 1)
    text = model.config.get_text_config()
    d, m = text.hidden_size, text.intermediate_size
    flops = sum(2 * (4 * n * d**2 + 2 * n**2 * d + 3 * n * d * m) for n in (k + 9 for k in run.stats.tokens[0]))
    assert run.decoder_flops(text_tokens=9) == (flops,)
    assert run.native.keys() == set(vars(case.method))


@pytest.mark.parametrize(("case", "model"), REFUSED, ids=name)
def test_a_model_that_lacks_what_the_method_needs_is_refused_by_name(case, model):
    with pytest.raises(ModelError, match=rf"^{case.name} cannot run on this {model} model: "):
        case.method(MODELS[model].model(), budget=BUDGET).__enter__()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_budgets_that_cannot_be_are_refused(case):
    model = MODELS["llava"].model()
    for wrong in ({"budget": 16}, {"budget": 40}, {"budget": "0"}, {}, {"budget": 4, "native": "default"}):
        with pytest.raises(BudgetError):
            case.method(model, **wrong).__enter__()
    with pytest.raises(BudgetError, match=rf"{case.name} has no native setting 'never'; it has default"):
        case.method(model, native="never").__enter__()
    with pytest.raises(BudgetError, match="percentage"):
        case.method(MODELS["llava_next"].model(), budget=7).__enter__()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_native_setting_can_be_named(case):
    for native in ("default", *case.method.published):
        assert isinstance(case.method.with_native(native), type(case.method))
    assert case.method.paper.startswith("arXiv ") or case.method.paper == "control"
    assert case.method.semantics


@pytest.mark.parametrize("case", CASES, ids=name)
def test_two_at_once_are_refused(case):
    model = MODELS["llava"].model()
    with case.method(model, budget=BUDGET), pytest.raises(ModelError, match="pruned already"):
        case.method(model, budget=BUDGET).__enter__()
