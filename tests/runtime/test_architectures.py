"""What every architecture must do: change nothing at a full budget, and prune as the slow reference does."""

import pytest
import torch
from architectures import CASES, LAYERED_CASES, LAYERS, NO_DEEPSTACK, together
from reference_decoder import encoded, reference_row, stacked
from runtime_cases import fingerprint, generated

from clasp_calib.common.errors import BudgetError, ModelError
from clasp_calib.common.progress import note_once
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import ADAPTERS, adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.deepstack import with_deepstack
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import RelativeSchedule, parse_budget

STARTS = (1, 2, 4)
OPTIONS, INPUT = PruningOptions(starts=STARTS), PruningOptions(profile="input")
BATCHES = {"one": (1,), "ragged": (1, 1, 1), "mixed": (1, 0, 2)}
TOKENS = 4


@pytest.fixture(params=LAYERED_CASES.values(), ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.mark.parametrize("name", sorted(set(CASES) - set(LAYERED_CASES)))
def test_a_decoder_that_cannot_be_pruned_inside_is_pruned_before_it(name, capsys):
    model = CASES[name].model()
    note_once.cache_clear()
    schedule = schedule_for(model, "40%")
    assert schedule.starts == (0,)
    assert f"a {model.config.model_type} model is pruned before its decoder" in capsys.readouterr().err
    with prune(model, schedule=schedule, rho=0.5) as pruner, torch.no_grad():
        model(**CASES[name].rows((1,))[0])
    assert len({*pruner.stats.tokens[0]}) == 1
    with (
        pytest.raises(ModelError, match="cannot be pruned with profile='layered'; give profile 'input'"),
        prune(model, schedule=schedule_for(model, "40%", OPTIONS), rho=0.5, options=OPTIONS),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "options"),
    [("glm4v", OPTIONS), ("glm4v", INPUT), ("qwen3_5", INPUT), ("minicpmv4_6", INPUT), ("llava", INPUT)],
)
def test_videos_that_an_adapter_does_not_know_are_refused(name, options):
    case, model = CASES[name], CASES[name].model()
    (row,) = case.rows((0,))
    with prune(model, schedule=schedule_for(model, "40%", options), rho=0.5, options=options), torch.no_grad():
        for videos in (
            {"pixel_values_videos": torch.zeros(8, 3 * 2 * 14 * 14)},
            {"mm_encoder_outputs": {"video": torch.zeros(4, 32)}},
        ):
            with pytest.raises(ModelError, match=f"videos of a {name} model cannot be pruned"):
                model(**row, **videos)
        with pytest.raises(ModelError, match=f"videos of a {name} model cannot be pruned"):
            model.generate(**row, pixel_values_videos=torch.zeros(8, 3 * 2 * 14 * 14), max_new_tokens=1)


def one_hot(adapter, rows):
    alpha_BL = torch.zeros(rows, adapter.vision_layers + 1)
    alpha_BL[:, adapter.own_layer] = 1
    return alpha_BL


def mixtures(adapter, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, adapter.vision_layers + 1, generator=generator).mul(4).softmax(-1)


def test_every_adapter_has_a_case():
    assert {case.model().config.model_type for case in CASES.values()} == set(ADAPTERS)


@pytest.mark.thinned("case", "batch")
@pytest.mark.parametrize("batch", BATCHES)
def test_a_full_budget_and_the_own_layer_are_bit_exact(case, batch):
    model, inputs, adapter = case.model(), together(case.rows(BATCHES[batch])), adapter_for(case.model())
    before = fingerprint(model)
    with torch.no_grad():
        expected, ids = model(**inputs).logits, generated(model, inputs, TOKENS)
        for alpha_BL in (None, one_hot(adapter, 1), one_hot(adapter, len(BATCHES[batch]))):
            with prune(model, schedule=schedule_for(model, "100%", OPTIONS), rho=0.5, alpha_BL=alpha_BL):
                assert (model(**inputs).logits - expected).abs().max() == 0.0
                assert generated(model, inputs, TOKENS) == ids
            assert fingerprint(model) == before
        assert (model(**inputs).logits - expected).abs().max() == 0.0


def test_hooks_that_keep_every_token_change_nothing(case):
    """A fan that goes on with each row as it is takes the whole way through gathering, masks and positions."""
    model, inputs = case.model(), together(case.rows((1, 1, 1)))
    with torch.no_grad():
        expected = model(**inputs, use_cache=False).logits
        with prune(model, schedule=schedule_for(model, "100%", OPTIONS), rho=0.5, fan=[0, 1, 2]) as pruner:
            got = model(**inputs, use_cache=False).logits
    real_BS = inputs["attention_mask"].bool()
    assert (got - expected)[real_BS].abs().max() < 2e-5
    assert [stage.start for stage in pruner.stats.stages] == [STARTS[0]]


@pytest.mark.shows("layered", "batch")
@pytest.mark.thinned("case", "batch")
@pytest.mark.parametrize("batch", BATCHES)
def test_pruned_ids_and_caches_equal_the_slow_reference(case, batch):
    model, rows, adapter = case.model(), case.rows(BATCHES[batch]), adapter_for(case.model())
    inputs, before = together(rows), fingerprint(model)
    rho = [0.6, 0.2, 0.0][: len(rows)]
    schedule = schedule_for(model, "40%", OPTIONS)
    with torch.no_grad(), prune(model, schedule=schedule, rho=rho) as pruner:
        logits = model(**inputs).logits[:, -1]
        out = model.generate(**inputs, max_new_tokens=TOKENS, return_dict_in_generate=True)
    references = [reference_row(model, row, schedule, share) for row, share in zip(rows, rho, strict=True)]
    for index, reference in enumerate(references):
        assert (logits[index] - reference.logits([])).abs().max() < 1e-3
        assert [stage.kept(index) for stage in pruner.stats.stages] == (reference.kept or [[], [], []])
    width = inputs["input_ids"].shape[1]
    assert out.sequences[:, width:].tolist() == [reference.generate(TOKENS) for reference in references]
    lengths = [layer.keys.shape[-2] for layer in out.past_key_values.layers]
    assert lengths == [max(reference.lengths[layer] for reference in references) for layer in range(LAYERS)]
    for index, row in enumerate(rows):
        visual = sum(int((row["input_ids"] == token).sum()) for token in adapter.visual_token_ids.values())
        a, b, c = schedule.counts_for(visual)
        assert pruner.stats.tokens[index] == (visual, a, b, b, c, c, c, c)
    assert fingerprint(model) == before


def test_each_picture_is_fused_by_the_row_that_owns_it(case):
    """Live, in generate and in forward, against rows that are alone in their batch."""
    model, rows, adapter = case.model(), case.rows((1, 0, 2)), adapter_for(case.model())
    alpha_BL, schedule = mixtures(adapter, 3), schedule_for(model, "40%", OPTIONS)
    with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL), torch.no_grad():
        ids = generated(model, together(rows), TOKENS)
        logits = model(**together(rows)).logits[:, -1]
    for index, row in enumerate(rows):
        with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL[index : index + 1]), torch.no_grad():
            assert ids[index] == generated(model, row, TOKENS)[0]
            assert (logits[index] - model(**row).logits[0, -1]).abs().max() < 1e-4


def test_precomputed_features_equal_the_live_tower(case):
    assert_precomputed_equals_live(case)


def test_a_model_without_deepstack_asks_for_it_all_the_same():
    assert_precomputed_equals_live(NO_DEEPSTACK)


def assert_precomputed_equals_live(case):
    """Through mm_encoder_outputs: captured picture by picture, fused and projected by hand."""
    model, rows, adapter = case.model(), case.rows((1, 1, 1)), adapter_for(case.model())
    alpha_BL, schedule = mixtures(adapter, 3), schedule_for(model, "40%", OPTIONS)
    name = adapter.pixel_names[case.modality]
    features, deepstack = [], [[] for _ in adapter.taps]
    for alpha_L, row in zip(alpha_BL, rows, strict=True):
        sizes = {key: row[key] for key in ("image_sizes", f"{case.modality}_grid_thw") if key in row}
        with torch.no_grad():
            layers_BLTC = adapter.capture(model, row[name], case.modality, **sizes)
            assert layers_BLTC.shape[1] == adapter.vision_layers + 1
            own = adapter.project(model, layers_BLTC[:, adapter.own_layer], case.modality, **sizes)
            live = encoded(model, row, case.modality)
            pooled = live.pooler_output
            pooled = pooled if isinstance(pooled, torch.Tensor) else torch.cat(list(pooled))
            assert torch.equal(torch.cat(own), pooled.reshape(-1, pooled.shape[-1]))
            fused_BTC = fuse(layers_BLTC, alpha_L.expand(len(layers_BLTC), -1))
            features += adapter.project(model, fused_BTC, case.modality, **sizes)
            of_row = stacked([[] for _ in adapter.taps], adapter, model, layers_BLTC, case.modality)
            for (found_ND,), (expected_ND,) in zip(of_row, getattr(live, "deepstack_features", ()), strict=True):
                assert torch.equal(found_ND, expected_ND)
            deepstack = [[*before, *more] for before, more in zip(deepstack, of_row, strict=True)]
    inputs = together(rows)
    prompts = {key: value for key, value in inputs.items() if key != name}
    with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL):
        expected = generated(model, inputs, TOKENS)
    with prune(model, schedule=schedule, rho=0.5):
        given = with_deepstack(adapter.encoder_outputs(features, case.modality), deepstack)
        assert generated(model, {**prompts, "mm_encoder_outputs": given}, TOKENS) == expected


@pytest.mark.shows("beams")
@pytest.mark.thinned("case", "how")
@pytest.mark.parametrize(
    "how", [{"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True}], ids=["beams", "sampling"]
)
def test_with_cache_equals_without(case, how):
    model, inputs = case.model(), together(case.rows((1, 1, 1)))
    length, results = inputs["input_ids"].shape[1], []
    for use_cache in (True, False):
        settings = {"schedule": schedule_for(model, "40%", OPTIONS), "rho": [0.2, 0.5, 0.9], "prompt_lengths": length}
        with prune(model, **settings):
            torch.manual_seed(7)
            results.append(generated(model, inputs, TOKENS, use_cache=use_cache, **how))
    assert results[0] == results[1]


def test_eager_attention_equals_sdpa(case):
    inputs, results = together(case.rows((1, 1))), []
    for attention in ("sdpa", "eager"):
        model = case.model(attention)
        with prune(model, schedule=schedule_for(model, "40%", OPTIONS), rho=0.5):
            results.append(generated(model, inputs, TOKENS))
    assert results[0] == results[1]


def test_budgets_fit_the_kind_of_model(case):
    model = case.model()
    if not adapter_for(model).ragged:
        assert schedule_for(model, 7, OPTIONS).tokens == adapter_for(model).tokens_per_image
        with (
            pytest.raises(BudgetError, match=r"and 9 layers; this model has 16 visual tokens and 8 layers"),
            prune(model, schedule=RelativeSchedule(parse_budget("40%"), 9, STARTS), rho=0.5),
        ):
            pass
        return
    with pytest.raises(BudgetError, match=r"differ in their number.*percentage above 12\.5%"):
        schedule_for(model, 7, OPTIONS)
    with pytest.raises(ModelError, match="differ in their number"):
        _ = adapter_for(model).tokens_per_image
