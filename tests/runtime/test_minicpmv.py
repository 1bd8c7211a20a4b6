"""MiniCPM-V 4.6, whose tower makes one token of four in its midst: states, relevance and files, by hand."""

import copy
from itertools import product

import pytest
import torch
from architectures import CASES
from runtime_cases import generated

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.tower_relevance import relevances_of

CASE = CASES["minicpmv4_6"]


def windows(line_by_line, height, width):
    """The mean of each square of four, one by one."""
    return torch.stack(
        [
            sum(line_by_line[(y + down) * width + x + right] for down in (0, 1) for right in (0, 1)) / 4
            for y in range(0, height, 2)
            for x in range(0, width, 2)
        ]
    )


@torch.no_grad()
def test_states_from_before_the_merge_are_means_of_its_windows():
    model, seen = CASE.model(), {}
    (row,) = CASE.rows((2,))
    layers = model.model.vision_tower.encoder.layers
    hooks = [layers[0].register_forward_pre_hook(lambda _, args: seen.update({0: args[0]}))]
    for number, layer in enumerate(layers, 1):
        hooks.append(layer.register_forward_hook(lambda _, __, out, number=number: seen.update({number: out})))
    model.get_image_features(row["pixel_values"], row["target_sizes"])
    for hook in hooks:
        hook.remove()
    captured_1LTC = adapter_for(model).capture(model, row["pixel_values"], target_sizes=row["target_sizes"])
    assert captured_1LTC.shape == (1, 5, (2 * 16 + 4 * 8), 16)
    grids = row["target_sizes"].tolist()
    assert len({tuple(grid) for grid in grids}) == 2
    for state in range(5):
        expected = seen[state][0]
        if state <= 2:
            slices = expected.split([height * width for height, width in grids])
            expected = torch.cat([windows(one, *grid) for one, grid in zip(slices, grids, strict=True)])
        torch.testing.assert_close(captured_1LTC[0, state], expected)


@torch.no_grad()
def test_relevance_of_tokens_that_the_projector_makes_one():
    model, seen = CASE.model(), []
    (row,) = CASE.rows((1,))
    attention = model.model.vision_tower.encoder.layers[-1].self_attn
    hook = attention.register_forward_pre_hook(lambda _, __, kw: seen.append(kw["hidden_states"][0]), with_kwargs=True)
    got = relevances_of(
        model, adapter_for(model), ["mean-attention"], row["pixel_values"], "image", target_sizes=row["target_sizes"]
    )["mean-attention"]
    hook.remove()
    grids = [(height // 2, width // 2) for height, width in row["target_sizes"].tolist()]
    slices = seen[0].split([height * width for height, width in grids])
    for one, grid, rated in zip(slices, grids, got, strict=True):
        query, key = (part(one).view(len(one), 2, -1) for part in (attention.q_proj, attention.k_proj))
        logits = torch.einsum("ihd,jhd->hij", query, key) * query.shape[-1] ** -0.5
        torch.testing.assert_close(rated, windows(logits.softmax(-1).mean((0, 1)) * len(one), *grid))


@torch.no_grad()
def test_files_of_one_length_are_captured_together():
    model, adapter = CASE.model(), adapter_for(CASE.model())
    pixels = torch.randn(2, 3, 7, (64 + 32) * 7)
    grids = [torch.tensor([[8, 8], [4, 8]]), torch.tensor([[12, 8]])]
    together = adapter.capture(model, pixels, target_sizes=torch.cat(grids))
    alone = [adapter.capture(model, one[None], target_sizes=grid) for one, grid in zip(pixels, grids, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))
    features = adapter.project(model, together[:, -1], target_sizes=torch.cat(grids))
    assert [len(one) for one in features] == [4, 2, 6]


@torch.no_grad()
def test_a_tower_that_does_not_merge():
    model = copy.deepcopy(CASE.model())
    model.config.downsample_mode = "4x"
    (row,), adapter = CASE.rows((1,)), adapter_for(model)
    pictures = {name: row[name] for name in ("pixel_values", "target_sizes")}
    expected = model.get_image_features(**pictures).pooler_output
    assert adapter.tokens(model, pictures) == [len(one) for one in expected] == [16, 8, 8]
    pixels = pictures.pop("pixel_values")
    got = adapter.project(model, adapter.capture(model, pixels, **pictures)[:, -1], **pictures)
    assert torch.equal(torch.cat(got), torch.cat(list(expected)))


@torch.no_grad()
def test_a_full_budget_changes_nothing_and_the_own_layer_is_exact():
    model, row = CASE.model(), CASE.rows((2,))[0]
    expected, ids = model(**row).logits, generated(model, row)
    own_1L = torch.eye(5)[4:]
    for alpha_1L in (None, own_1L):
        with prune(model, schedule=schedule_for(model, "100%"), rho=0.5, alpha_BL=alpha_1L):
            assert torch.equal(model(**row).logits, expected)
            assert generated(model, row) == ids


def not_merged(row):
    """The row with as many visual tokens as a tower makes of its picture that does not merge."""
    times = torch.where(row["input_ids"][0] == CASE.model().config.image_token_id, 4, 1)
    wide = {name: row[name].repeat_interleave(times, 1) for name in ("input_ids", "attention_mask")}
    return {**wide, **{name: row[name] for name in ("pixel_values", "target_sizes")}, "downsample_mode": "4x"}


MIXTURES = {"own": [[0.0, 0, 0, 0, 1]], "early": [[0.0, 1, 0, 0, 0]], "mixed": [[0.2] * 5], "none": None}


# All of the tokens without a mixture are an untouched model.
TOUCHED = [*product(MIXTURES, ["50%"]), *product(["own", "early", "mixed"], ["100%"])]


@pytest.mark.parametrize("relevance", ["none", "mean-attention"])
@pytest.mark.parametrize(("mixture", "budget"), TOUCHED)
@torch.no_grad()
def test_another_mode_in_a_call_is_refused(mixture, relevance, budget):
    model, row = CASE.model(), CASE.rows((1,))[0]
    wide, alpha = not_merged(row), MIXTURES[mixture]
    assert len(model(**wide).logits[0]) > len(row["input_ids"][0])
    pictures = {name: row[name] for name in ("pixel_values", "target_sizes")}
    options = PruningOptions(profile="input", relevance=relevance)
    told = r"downsample_mode='4x' .* configuration says '16x'; set it in"
    with prune(
        model,
        schedule=schedule_for(model, budget, options),
        rho=0.5,
        alpha_BL=None if alpha is None else torch.tensor(alpha, dtype=torch.float64),
        options=options,
    ):
        with pytest.raises(ModelError, match=told):
            model(**wide)
        with pytest.raises(ModelError, match=told):
            model.generate(**wide)
        if alpha is not None or relevance != "none":
            with pytest.raises(ModelError, match=told):
                model.get_image_features(**pictures, downsample_mode="4x")
        expected = model(**row).logits
        assert torch.equal(model(**row, downsample_mode="16x").logits, expected)


def configured(**settings):
    kind, config = CASE.build()
    for name, value in settings.items():
        setattr(config if hasattr(config, name) else config.vision_config, name, value)
    config.vision_config.insert_layer_id = config.insert_layer_id
    return kind, config


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"insert_layer_id": -1}, r"insert_layer_id=-1 .* the 4 blocks .* 0 to 2, or with downsample_mode='4x'"),
        ({"insert_layer_id": 3}, "insert_layer_id=3"),
        ({"insert_layer_id": 4}, "insert_layer_id=4"),
        ({"merge_kernel_size": (4, 1)}, r"merge_kernel_size=\(4, 1\) is not supported; .* of \(2, 2\)"),
        ({"merge_kernel_size": [1, 4], "downsample_mode": "4x"}, "merge_kernel_size"),
        ({"window_kernel_size": [4, 4]}, r"window_kernel_size=\(4, 4\)"),
    ],
)
def test_towers_that_merge_elsewhere_or_otherwise_are_refused(settings, told):
    with pytest.raises(ModelError, match=told):
        adapter_for(configured(**settings)[1])


@pytest.mark.parametrize(("merged", "mode"), [(0, "16x"), (2, "16x"), (3, "4x"), (-1, "4x")])
@torch.no_grad()
def test_the_own_layer_is_exact_wherever_the_tower_merges(merged, mode):
    torch.manual_seed(0)
    kind, config = configured(insert_layer_id=merged, downsample_mode=mode)
    model, row = kind(config).eval(), CASE.rows((1,))[0]
    pictures = {name: row[name] for name in ("pixel_values", "target_sizes")}
    expected = model.get_image_features(**pictures).pooler_output
    with prune(model, schedule=schedule_for(model, "100%"), rho=0.5, alpha_BL=torch.eye(5)[4:]):
        got = model.get_image_features(**pictures).pooler_output
    assert torch.equal(torch.cat(list(got)), torch.cat(list(expected)))
    states = adapter_for(model).capture(model, pictures.pop("pixel_values"), **pictures)
    again = adapter_for(model).project(model, states[:, -1], **pictures)
    assert torch.equal(torch.cat(again), torch.cat(list(expected)))
