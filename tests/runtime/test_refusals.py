import copy

import pytest
import torch
from architectures import CASES
from made_artifacts import made
from runtime_cases import LATER, SCHEDULE, fingerprint, model
from tiny_models import tiny_batch
from transformers import MistralConfig, StaticCache

from clasp_calib.common.errors import BudgetError, InputError, ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.schedule import Schedule
from clasp_calib.runtime.selection import Selection


@pytest.fixture
def pruned():
    with torch.no_grad(), prune(model(), schedule=SCHEDULE, rho=0.5) as pruner:
        yield pruner


def refuse_to_run(*_):
    raise AssertionError("the tower ran")


def test_static_caches_before_the_tower_runs(pruned):
    handle = model().model.vision_tower.register_forward_pre_hook(refuse_to_run)
    cache = StaticCache(config=model().config.get_text_config(), max_cache_len=64)
    try:
        with pytest.raises(ModelError, match=r"a static cache cannot.*DynamicCache"):
            model().generate(**tiny_batch(model()), max_new_tokens=2, cache_implementation="static")
        with pytest.raises(ModelError, match=r"a StaticCache cannot.*DynamicCache"):
            model().generate(**tiny_batch(model()), max_new_tokens=2, past_key_values=cache)
        with pytest.raises(ModelError, match=r"a StaticCache cannot.*DynamicCache"):
            model()(**tiny_batch(model()), past_key_values=cache)
        with pytest.raises(ModelError, match="needs input_ids"):
            model().generate(inputs_embeds=torch.zeros(1, 3, 32), pixel_values=torch.zeros(1, 3, 56, 56))
    finally:
        handle.remove()


def test_embeddings_without_ids(pruned):
    embeddings = model().get_input_embeddings()(torch.tensor([[1, 40, 41]]))
    with pytest.raises(ModelError, match="needs input_ids"):
        model()(inputs_embeds=embeddings)


def test_padding_on_the_right(pruned):
    batch = tiny_batch(model(), [(3, 7), (3, 5)])
    for key in ("input_ids", "attention_mask"):
        batch[key][1] = batch[key][1].roll(-2)
    with pytest.raises(ModelError, match=r"row 1 ends with padding.*left"):
        model()(**batch)


def test_masks_of_four_dimensions(pruned):
    batch = tiny_batch(model(), [(3, 7)])
    size = batch["input_ids"].shape[1]
    with pytest.raises(ModelError, match="4 dimensions"):
        model()(**{**batch, "attention_mask": torch.zeros(1, 1, size, size)})


def test_rho_for_another_batch():
    with (
        pytest.raises(ModelError, match="rho has 2 values for a batch of 3 rows"),
        prune(model(), schedule=SCHEDULE, rho=[0.2, 0.3]),
    ):
        model().generate(**tiny_batch(model()), max_new_tokens=2)


@pytest.mark.parametrize("rho", [1.2, -0.1, [0.5, float("nan")], []])
def test_rho_outside_its_range(rho):
    with pytest.raises(ModelError, match="between 0 and 1"), prune(model(), schedule=SCHEDULE, rho=rho):
        pass


@pytest.mark.parametrize("schedule", [Schedule(16, 9, (1, 2, 4), (9, 6, 3)), Schedule(25, 8, (1, 2, 4), (9, 6, 3))])
def test_schedules_of_another_model(schedule):
    with (
        pytest.raises(BudgetError, match="this model has 16 visual tokens and 8 layers"),
        prune(model(), schedule=schedule, rho=0.5),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"raters": "some"}, "raters is 'some'; expected one of sparsevlm, all, last"),
        ({"positions": "shuffle"}, "positions is 'shuffle'; expected one of keep, compact"),
        ({"features": "raw"}, "features is 'raw'; expected one of projected, hidden"),
        ({"seeding": "random"}, "seeding is 'random'; expected one of redundancy, farthest, k-center"),
        ({"profile": "tower"}, "profile is 'tower'; expected one of layered, input"),
        ({"iterations": -1}, "iterations is -1; expected 0 or more"),
    ],
)
def test_unknown_options(settings, expected):
    with (
        pytest.raises(ModelError, match=expected),
        prune(model(), schedule=SCHEDULE, rho=0.5, options=PruningOptions(**settings)),
    ):
        pass


@pytest.mark.parametrize("starts", [(), (0, 1, 2), (2, 2, 5), (6, 2, 15)])
def test_starts_that_do_not_rise(starts):
    with pytest.raises(BudgetError, match="expected rising layers, the first at least 1"):
        PruningOptions(starts=starts)


def test_options_that_contradict_the_schedule():
    options = PruningOptions(starts=(1, 2, 5))
    with (
        pytest.raises(BudgetError, match=r"stages at layers \(1, 2, 5\), and the schedule has them at \(1, 2, 4\)"),
        prune(model(), schedule=SCHEDULE, rho=0.5, options=options),
    ):
        pass
    with prune(model(), schedule=SCHEDULE, rho=0.5, options=PruningOptions(starts=SCHEDULE.starts)):
        pass


def test_a_schedule_of_options_and_an_artifact():
    with pytest.raises(InputError, match="an artifact, which brings its own; give one of the two"):
        schedule_for(model(), 7, PruningOptions(), artifact=made("7"))


def test_a_fan_of_another_length():
    with (
        pytest.raises(ModelError, match="2 values for a fan of 3"),
        prune(model(), schedule=SCHEDULE, rho=[0.1, 0.2], fan=[0, 0, 1]),
    ):
        pass


@pytest.mark.parametrize("fan", [[], [0, -1]])
def test_a_fan_from_nowhere(fan):
    with pytest.raises(ModelError, match="counted from 0"), prune(model(), schedule=SCHEDULE, rho=0.5, fan=fan):
        pass


def test_selectors_that_miscount():
    class Greedy:
        needs_gram = False

        def __call__(self, relevance_BN, gram_BNN, counts_B, rho_B, valid_BN):
            return Selection(valid_BN, valid_BN)

    with (
        pytest.raises(ModelError, match=r"Greedy kept \[16, 16, 16\].*here \[9, 9, 9\]"),
        prune(model(), schedule=SCHEDULE, rho=0.5, selector=Greedy()),
    ):
        model().generate(**tiny_batch(model()), max_new_tokens=2)


def test_sliding_windows():
    sliding = copy.copy(model())
    sliding.config = copy.copy(model().config)
    sliding.config.text_config = MistralConfig(num_hidden_layers=8, sliding_window=128)
    with pytest.raises(ModelError, match="sliding window"), prune(sliding, schedule=SCHEDULE, rho=0.5):
        pass


def test_a_model_that_is_pruned_already(pruned):
    before = fingerprint(model())
    with pytest.raises(ModelError, match="pruned already"), prune(model(), schedule=SCHEDULE, rho=0.5):
        pass
    with pytest.raises(ModelError, match="pruned already"), prune(model(), schedule=LATER, rho=0.5):
        pass
    assert fingerprint(model()) == before


def test_caches_of_another_context():
    batch = tiny_batch(model(), [(3, 7)])
    with torch.no_grad():
        with prune(model(), schedule=SCHEDULE, rho=0.5):
            cache = model()(**batch).past_key_values
        with prune(model(), schedule=SCHEDULE, rho=0.5), pytest.raises(ModelError, match="another context"):
            model()(torch.tensor([[40]]), past_key_values=cache)


def test_ragged_models_take_percentages_only():
    case = CASES["qwen2_5_vl"]
    with (
        pytest.raises(BudgetError, match=r"counts 16 visual tokens.*give a percentage"),
        prune(case.model(), schedule=SCHEDULE, rho=0.5),
    ):
        pass


def test_compact_positions_have_one_axis():
    case = CASES["qwen2_vl"]
    with (
        pytest.raises(ModelError, match=r"one axis.*have 3 \(time, height, width\); use positions='keep'"),
        prune(
            case.model(),
            schedule=schedule_for(case.model(), "40%", PruningOptions(starts=(1, 2, 4))),
            rho=0.5,
            options=PruningOptions(positions="compact"),
        ),
    ):
        pass


def test_pictures_too_small_for_a_percentage():
    """Known only when the picture is there: 4 tokens at 15 % are under their floor."""
    case = CASES["qwen2_vl video"]
    inputs = case.row(3, 1, 1, 4)
    with (
        pytest.raises(BudgetError, match=r"15% \(a mean of 0\.60 tokens\) cannot be met: with 4 visual tokens"),
        prune(case.model(), schedule=schedule_for(case.model(), "15%", PruningOptions(starts=(1, 2, 4))), rho=0.5),
    ):
        case.model().generate(**inputs, max_new_tokens=1)
