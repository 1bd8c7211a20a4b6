"""What the papers' settings cost on LLaVA-1.5-7B (576 visual tokens, 32 layers), and what budgets solve to."""

from types import SimpleNamespace

import pytest

from clasp_calib.baselines.ficoco_v import FiCoCoV
from clasp_calib.baselines.registry import METHODS, method
from clasp_calib.baselines.solving import Spread, solve_knob
from clasp_calib.baselines.staged import count_of
from clasp_calib.baselines.tome import ToMe
from clasp_calib.baselines.tower_method import even_steps
from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.schedule import Budget

LLAVA_7B = SimpleNamespace(
    ragged=False,
    tokens_per_image=576,
    patch_tokens=576,
    decoder_layers=32,
    own_layer=23,
    vision_layers=24,
    class_tokens=1,
    vision_tower=lambda model: SimpleNamespace(config=SimpleNamespace(hidden_size=1024, intermediate_size=4096)),
)
IMAGE = SimpleNamespace(layout=SimpleNamespace(cell_N=range(576)))


@pytest.mark.parametrize(("rate", "left"), [(16, 208), (16.7, 192)])
def test_tome_leaves_what_its_rate_says(rate, left):
    assert 576 - sum(ToMe(rate=rate).steps(LLAVA_7B).values()) == left


@pytest.mark.parametrize(("budget", "rate"), [(192, 16.7), (128, 19.5), (64, 22.3)])
def test_budgets_solved_for_tome(budget, rate):
    solved = ToMe().solved(LLAVA_7B, Budget(tokens=budget))
    assert round(solved.rate, 1) == rate
    assert 576 - sum(solved.steps(LLAVA_7B).values()) == budget


@pytest.mark.parametrize(("rate", "left"), [(35, 191), (41, 125), (46, 70)])
def test_ficoco_leaves_what_its_rate_says(rate, left):
    steps = FiCoCoV(rate=rate).steps(LLAVA_7B)
    assert (min(steps), max(steps), set(steps.values())) == (12, 22, {rate})
    assert 576 - sum(steps.values()) == left


@pytest.mark.parametrize("name", ["tome", "ficoco-v"])
@pytest.mark.parametrize("budget", [1, 64, 128, 192, 575])
def test_towers_leave_exactly_the_budget_and_cost_less(name, budget):
    solved = method(name).solved(LLAVA_7B, Budget(tokens=budget))
    assert 576 - sum(solved.steps(LLAVA_7B).values()) == budget
    unmerged = type(solved)(rate=0).vision_flops(None, LLAVA_7B)
    assert 0.1 * unmerged < solved.vision_flops(None, LLAVA_7B) < unmerged
    # 577 tokens: per block 4 n d^2 + 2 n^2 d + 2 n d m multiply-adds
    assert unmerged == 24 * 2 * (4 * 577 * 1024**2 + 2 * 577**2 * 1024 + 2 * 577 * 1024 * 4096)


@pytest.mark.parametrize(
    ("blocks", "total", "tokens", "halves"), [(3, 15, 16, True), (1, 9, 16, True), (2, 16, 16, False)]
)
def test_more_than_blocks_can_merge_is_refused(blocks, total, tokens, halves):
    with pytest.raises(BudgetError, match="which is the floor, and were to leave"):
        even_steps(blocks, total, tokens, halves)


@pytest.mark.parametrize(("blocks", "total", "tokens"), [(4, 60, 64), (5, 11, 64), (23, 512, 576), (3, 0, 9)])
@pytest.mark.parametrize("halves", [True, False])
def test_steps_are_as_even_as_can_be(blocks, total, tokens, halves):
    counts, left = even_steps(blocks, total, tokens, halves), tokens
    assert sum(counts) == total
    assert counts == sorted(counts, reverse=True)
    for count in counts:
        assert count <= (left // 2 if halves else left - 1)
        left -= count
    assert max(counts) - min(counts) <= 1 or halves


@pytest.mark.parametrize(("budget", "kept"), [(192, 166), (128, 98), (64, 30)])
def test_budgets_solved_for_fastv(budget, kept):
    solved = method("fastv").solved(LLAVA_7B, Budget(tokens=budget))
    (count,) = solved.schedule(LLAVA_7B).counts_for(576)
    assert count == kept
    assert abs((2 * 576 + 30 * count) / 32 - budget) <= 0.5


def test_fastv_refuses_what_is_under_its_floor():
    assert method("fastv").solved(LLAVA_7B, Budget(tokens=37)).ratio < 1
    with pytest.raises(BudgetError, match=r"layers 0 to 1 of 32 work on all tokens, which is a floor of 36\.94 tokens"):
        method("fastv").solved(LLAVA_7B, Budget(tokens=36))


@pytest.mark.parametrize(("name", "native", "count"), [
    ("fastervlm", "144", 144), ("fastervlm", "58", 58),
    ("hired", "20%", 115), ("hired", "192", 192),
    ("hiprune", "128", 128), ("scope", "64", 64), ("prunesid", "192", 192),
    ("visionzip", "64", 64), ("divprune", "9.8%", 56), ("holov", "64", 64), ("vispruner", "64", 64),
])  # fmt: skip
def test_native_settings_that_count_what_enters(name, native, count):
    assert METHODS[name]().with_native(native).count(IMAGE) == count


@pytest.mark.parametrize(("native", "mean"), [("60%", 245), ("80%", 131), ("90%", 73)])
def test_fitprune_works_on_what_its_shipped_recipes_leave(native, mean):
    solved = method("fitprune").with_native(native)
    assert round(576 * sum(1 - gone for gone in solved.gone) / 32) == mean


@pytest.mark.parametrize("budget", [192, 128, 64])
def test_vscan_meets_its_means_as_published(budget):
    """Three halves of the mean enter, and a half is left from layer 16 of 32 on: 96 and 32 for 64."""
    solved = method("vscan").solved(LLAVA_7B, Budget(tokens=budget))
    assert solved.count(IMAGE) == method("vscan").with_native(budget).count(IMAGE) == budget * 3 // 2
    assert count_of(solved.later, budget * 3 // 2) == budget // 2
    assert method("vscan").solved(LLAVA_7B, Budget(tokens=500)).later == pytest.approx(424 / 576)


def test_visionzip_splits_as_published():
    zipped = method("visionzip")
    assert [int(count * zipped.context + 0.5) for count in (192, 128, 64)] == [30, 20, 10]


def test_a_knob_is_solved_to_within_a_token():
    images = [50, 80, 120, 200, 333]
    knob, spread = solve_knob(lambda knob: [size / (1 + knob) for size in images], 64, 0.0, 10.0, "method with knob")
    assert abs(spread.mean - 64) <= 1
    assert (spread.images, spread.least, spread.most) == (5, 50 / (1 + knob), 333 / (1 + knob))
    assert str(spread).startswith(f"{spread.mean:.2f} tokens on 5 images, standard deviation ")


@pytest.mark.parametrize(("deviation", "needed"), [(0.0, 0), (42.81, 173), (127.64, 1537)])
def test_how_many_images_a_mean_takes(deviation, needed):
    """So that 1.96 standard errors are 5 % of the mean."""
    spread = Spread(127.64, deviation, 60, 220, 18)
    assert spread.needed == needed
    assert str(spread).endswith(f"(to be sure of 5%: {needed} images)")


def test_a_knob_that_jumps_over_the_budget_is_refused():
    with pytest.raises(BudgetError, match=r"no method with knob brings these images to 7\.00 tokens in the mean"):
        solve_knob(lambda knob: [10 if knob < 1 else 2], 7, 0.0, 10.0, "method with knob")


def test_a_knob_beside_which_the_number_rises_again_is_found():
    """The number falls by and large, and is what is wanted in one narrow place only."""

    def tokens_at(knob):
        return [20.0 - knob if 5.0 <= knob < 5.2 else (30.0 if knob < 5.1 else 5.0)]

    knob, spread = solve_knob(tokens_at, 15, 0.0, 10.0, "method with knob")
    assert 5.0 <= knob < 5.2
    assert abs(spread.mean - 15) <= 1
