"""Ways to call a pruned model, on every architecture: turns, drafts, prefixes, precisions, options."""

import copy

import pytest
import torch
from architectures import CASES, IMAGE, LAYERED_CASES, VIDEO, together
from reference_decoder import reference_row
from runtime_cases import generated, pruned_under

from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pruner import prune

STARTS = (1, 2, 4)
OPTIONS = PruningOptions(starts=STARTS)
TURN = [[11, 45, 37, 30]]


@pytest.fixture(params=LAYERED_CASES.values(), ids=lambda case: case.name)
def case(request):
    return request.param


def pruned(case, rho=0.5, **settings):
    return prune(case.model(), schedule=schedule_for(case.model(), "40%", OPTIONS), rho=rho, **settings)


def test_a_second_turn_goes_on_with_the_pruned_cache(case):
    model, row = case.model(), case.rows((1,))[0]
    width = row["input_ids"].shape[1]
    with pruned(case):
        first = model.generate(**row, max_new_tokens=3, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, torch.tensor(TURN)], 1)
        second = model.generate(
            ids, attention_mask=torch.ones_like(ids), past_key_values=first.past_key_values, max_new_tokens=3
        )
    reference = reference_row(model, row, schedule_for(model, "40%", OPTIONS), 0.5)
    answer = ids[0, width:].tolist()
    for _ in range(3):
        answer.append(int(reference.logits(answer).argmax()))
    assert second[0, width:].tolist() == answer


def test_lookup_decoding_crops_the_cache(case):
    row = case.rows((1,))[0]
    with pruned(case):
        assert generated(case.model(), row, 10) == generated(case.model(), row, 10, prompt_lookup_num_tokens=3)


def test_a_cached_prefix_changes_nothing(case):
    model, row = case.model(), case.row(0, 6, 1, 5)
    if "mm_token_type_ids" in row:
        pytest.skip("transformers 5.19 itself answers otherwise after a prefix where positions have three axes")
    with torch.no_grad():
        prefix = model(row["input_ids"][:, :5]).past_key_values
    with pruned(case) as pruner:
        expected, kept = generated(model, row), pruner.stats.stages[-1].kept(0)
        assert generated(model, row, past_key_values=copy.deepcopy(prefix)) == expected
        assert pruner.stats.stages[-1].kept(0) == kept


def test_returned_sequences_are_as_many_as_asked_for(case):
    inputs = together(case.rows((1, 1)))
    with pruned(case, rho=[0.2, 0.8]):
        torch.manual_seed(3)
        sampled = generated(case.model(), inputs, do_sample=True, num_return_sequences=3, temperature=3.0)
        greedy = generated(case.model(), inputs)
        first = generated(case.model(), inputs, do_sample=True, num_return_sequences=3, top_k=1)
    assert len(sampled) == 6
    assert len({tuple(ids) for ids in sampled}) > 2
    assert first == [greedy[0]] * 3 + [greedy[1]] * 3


@pytest.mark.thinned("case", "dtype")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(case, dtype):
    model = copy.deepcopy(case.model()).to(dtype)
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in together(case.rows((1, 1))).items()
    }
    adapter = adapter_for(model)
    alpha_BL = torch.full((2, adapter.vision_layers + 1), 1 / (adapter.vision_layers + 1))
    schedule = schedule_for(model, "40%", OPTIONS)
    with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL) as pruner:
        assert len(generated(model, inputs)) == 2
    offered = [row[0] for row in pruner.stats.tokens]
    kept = [[len(stage.kept(row)) for stage in pruner.stats.stages] for row in range(2)]
    assert kept == [list(schedule.counts_for(tokens)) for tokens in offered]


@pytest.mark.thinned("case", "settings")
@pytest.mark.parametrize(
    "settings",
    [
        {"raters": "all"},
        {"raters": "last"},
        {"features": "hidden"},
        {"iterations": 1},
        {"positions": "compact"},
    ],
    ids=lambda settings: "-".join(settings.values()) if "iterations" not in settings else "one iteration",
)
def test_options_equal_the_slow_reference(case, settings):
    model, rows = case.model(), case.rows((1, 1))
    schedule = schedule_for(model, "40%", PruningOptions(starts=(2, 3, 5)))
    if settings.get("positions") == "compact" and "mm_token_type_ids" in rows[0]:
        pytest.skip("refused where positions have three axes")
    with pruned_under(model, schedule=schedule, rho=0.4, **settings) as pruner:
        ids = generated(model, together(rows), 3)
    for index, row in enumerate(rows):
        reference = reference_row(model, row, schedule, 0.4, **settings)
        assert ids[index] == reference.generate(3)
        assert [stage.kept(index) for stage in pruner.stats.stages] == reference.kept


@pytest.mark.parametrize("name", ["video_llava", "qwen2_vl", "qwen2_5_vl", "llava_onevision"])
def test_images_and_videos_in_one_prompt(name):
    """Both kinds are pruned together, each fused by the tower that encodes it."""
    image, video = CASES[name], CASES[f"{name} video"]
    model, adapter = image.model(), adapter_for(image.model())
    first, second = image.row(0, 3, 1, 4), video.row(1, 2, 1, 6)
    both = {key: torch.cat([first[key], second[key][:, 1:]], 1) for key in ("input_ids", "attention_mask")}
    both |= {key: value for row in (first, second) for key, value in row.items() if key not in {**both}}
    if "mm_token_type_ids" in first:
        both["mm_token_type_ids"] = ((both["input_ids"] == IMAGE) + 2 * (both["input_ids"] == VIDEO)).int()
    generator = torch.Generator().manual_seed(0)
    alpha_BL = torch.rand(2, adapter.vision_layers + 1, generator=generator).mul(4).softmax(-1)
    schedule = schedule_for(model, "40%", OPTIONS)
    visual = int(((both["input_ids"] == IMAGE) | (both["input_ids"] == VIDEO)).sum())
    with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL[:1]) as pruner:
        alone = generated(model, both)
    assert [len(stage.kept(0)) for stage in pruner.stats.stages] == list(schedule.counts_for(visual))
    with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL):
        ids = generated(model, together([both, first]))
    assert ids[0] == alone[0]
    with prune(model, schedule=schedule, rho=0.5, alpha_BL=alpha_BL[1:]):
        assert ids[1] == generated(model, first)[0]
