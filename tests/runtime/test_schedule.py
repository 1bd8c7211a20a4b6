import itertools
import re

import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.flops import decoder_flops
from clasp_calib.runtime.schedule import (
    Budget,
    RelativeSchedule,
    Schedule,
    ShareSchedule,
    parse_budget,
    solve_schedule,
)

PAPER = {"tokens": 576, "layers": 32, "starts": (2, 6, 15)}


@pytest.mark.parametrize(
    ("budget", "counts", "mean", "mean_one_later"),
    [
        (192, (300, 200, 118), 192.44, 206.8),
        (128, (238, 108, 60), 128.00, 144.1),
        (64, (66, 34, 20), 64.44, 81.8),
    ],
)
def test_published_lists_stand(budget, counts, mean, mean_one_later):
    schedule = solve_schedule(parse_budget(budget), **PAPER)
    assert schedule.counts == counts
    assert schedule.mean_tokens == pytest.approx(mean, abs=0.005)
    assert Schedule(576, 32, (3, 7, 16), counts).mean_tokens == pytest.approx(mean_one_later, abs=0.06)


def test_mean_is_the_formula():
    schedule = Schedule(576, 32, (2, 6, 15), (300, 200, 118))
    assert schedule.mean_tokens == (2 * 576 + 4 * 300 + 9 * 200 + 17 * 118) / 32
    assert schedule.per_layer == (576,) * 2 + (300,) * 4 + (200,) * 9 + (118,) * 17
    assert schedule.floor == pytest.approx(36.94, abs=0.005)


@pytest.mark.parametrize("text", ["abc", "-3", "0%", "0", "", "9" * 5000, "1e3", "64.0", "101%", "nan%", "%", "33 %%"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(BudgetError, match="neither a number of tokens nor a share"):
        parse_budget(text)


@pytest.mark.parametrize(("text", "name"), [("192", "192"), (192, "192"), (" 33% ", "33%"), ("33.0%", "33%")])
def test_names_are_canonical(text, name):
    assert parse_budget(text).name == name
    assert parse_budget(name) == parse_budget(text)


@pytest.mark.parametrize("budget", ["576", "9999"])
def test_a_budget_that_prunes_nothing_is_refused(budget):
    with pytest.raises(BudgetError, match=r"prunes nothing: the encoder gives 576.*100%"):
        solve_schedule(parse_budget(budget), **PAPER)


def test_a_budget_under_the_floor_names_it_and_two_ways_out():
    with pytest.raises(BudgetError, match=r"floor is a mean of 36\.94.*layer 1 or before.*at least 36\.94"):
        solve_schedule(parse_budget(30), **PAPER)
    with pytest.raises(BudgetError, match=r"36\.94.*not enough here.*at least 36\.94"):
        solve_schedule(parse_budget(5), **PAPER)
    with pytest.raises(BudgetError, match=r"33%.*mean of 5\.28.*at least 7\.00"):
        solve_schedule(parse_budget("33%"), tokens=16, layers=5, starts=(2, 3, 4))
    with pytest.raises(BudgetError, match="180"):
        solve_schedule(parse_budget(160), tokens=2880, layers=32)


def test_full_budget_keeps_everything():
    schedule = solve_schedule(parse_budget("100%"), **PAPER)
    assert schedule.counts == (576, 576, 576)
    assert schedule.mean_tokens == 576


@pytest.mark.parametrize("starts", [(0, 6, 15), (2, 2, 15), (2, 6), (2, 6, 32), (6, 2, 15)])
def test_impossible_starts_are_refused(starts):
    with pytest.raises(BudgetError, match="rising layers between 1 and 31"):
        solve_schedule(parse_budget(192), 576, 32, starts)


@pytest.mark.parametrize("counts", [(300, 301, 118), (577, 200, 118), (300, 200, 0), (300, 200)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(BudgetError, match="never grow"):
        Schedule(576, 32, (2, 6, 15), counts)


def brute_force(target, tokens, layers, starts):
    """Least distance of any admissible triple's mean from the target."""
    means = (
        Schedule(tokens, layers, starts, (a, b, c)).mean_tokens
        for a, b, c in itertools.product(range(1, tokens + 1), repeat=3)
        if a >= b >= c
    )
    return min(abs(mean - target) for mean in means if mean <= target + 0.5)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(2, 14),
    starts=st.lists(st.integers(1, 9), min_size=3, max_size=3, unique=True).map(sorted).map(tuple),
    share=st.floats(0.01, 0.99),
)
def test_solved_mean_is_as_near_as_integers_allow(tokens, starts, share):
    layers = 10
    floor = (starts[0] * tokens + layers - starts[0]) / layers
    percent = 100 * (floor + share * (tokens - floor)) / tokens
    budget = Budget(percent=min(percent, 99.99))
    target = budget.of(tokens)
    schedule = solve_schedule(budget, tokens, layers, starts)
    assert schedule.mean_tokens <= target + 0.5 + 1e-9
    assert abs(schedule.mean_tokens - target) == pytest.approx(brute_force(target, tokens, layers, starts), abs=1e-9)


@pytest.mark.parametrize("layers", [16, 32, 40])
@pytest.mark.parametrize("share", [13, 22.2, 33, 60, 99])
def test_solved_shape_lies_between_its_neighbours(layers, share):
    starts = (1, 5, 11)
    a, b, c = solve_schedule(Budget(percent=share), 576, layers, starts).counts
    assert 576 >= a >= b >= c >= 1
    if share < 33.4:
        assert 300 / 200 - 0.1 < a / b < 238 / 108 + 0.2
        assert 60 / 238 - 0.05 < c / a < 118 / 300 + 0.05


def test_flops_are_twice_the_multiply_adds_of_every_layer():
    schedule = Schedule(16, 4, (1, 2, 3), (8, 4, 2))
    by_hand = sum(2 * (4 * n * 6 * 6 + 2 * n * n * 6 + 3 * n * 6 * 10) for n in (19, 11, 7, 5))
    assert decoder_flops(schedule.per_layer, hidden=6, mlp=10, text_tokens=3) == by_hand


def test_a_relative_schedule_solves_for_every_number_of_tokens():
    schedule = RelativeSchedule(parse_budget("40%"), 32)
    for tokens in (96, 576, 2880):
        assert schedule.counts_for(tokens) == solve_schedule(parse_budget("40%"), tokens, 32).counts
    assert schedule.counts_for(0) == (0, 0, 0)
    assert schedule.changing == (2, 6, 15)
    full = RelativeSchedule(parse_budget("100%"), 32)
    assert (full.changing, full.counts_for(50)) == ((), (50, 50, 50))


def test_a_relative_schedule_takes_percentages_above_its_floor():
    with pytest.raises(BudgetError, match=r"192 tokens means something else.*above 6\.25%"):
        RelativeSchedule(parse_budget(192), 32)
    with pytest.raises(BudgetError, match=r"budget of 6% cannot be met: before layer 2 of 32.*6\.25% already"):
        RelativeSchedule(parse_budget("6%"), 32)
    with pytest.raises(BudgetError, match="rising layers"):
        RelativeSchedule(parse_budget("50%"), 32, (0, 6, 15))


def test_several_pictures_scale_the_counts():
    schedule = Schedule(16, 8, (1, 2, 4), (9, 6, 3))
    assert [schedule.counts_for(n) for n in (0, 2, 16, 48)] == [(0, 0, 0), (1, 1, 1), (9, 6, 3), (27, 18, 9)]
    assert schedule.changing == (1, 2, 4)
    assert Schedule(16, 8, (1, 2, 4), (16, 6, 6)).changing == (2,)


@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=4), tokens=st.integers(0, 600))
def test_shares_are_counted_to_the_nearest_and_never_grow(shares, tokens):
    schedule = ShareSchedule(9, tuple(range(1, len(shares) + 1)), tuple(sorted(shares, reverse=True)))
    counts = schedule.counts_for(tokens)
    assert list(counts) == sorted(counts, reverse=True)
    for share, count in zip(schedule.shares, counts, strict=True):
        assert abs(count - share * tokens) <= 0.5 + 1e-6 or count == 1
        assert (count == 0) == (tokens == 0)


def test_stages_that_keep_every_share_change_nothing():
    assert ShareSchedule(8, (1, 3, 5), (1.0, 0.5, 0.5)).changing == (3,)
    assert Schedule(16, 8, (2,), (4,)).per_layer == (16, 16, 4, 4, 4, 4, 4, 4)


@pytest.mark.parametrize(
    ("starts", "shares"),
    [((1, 2), (0.5,)), ((1, 2), (0.4, 0.5)), ((1,), (1.1,)), ((1,), (-0.1,)), ((0, 2), (1, 1))],
)
def test_impossible_shares_are_refused(starts, shares):
    with pytest.raises(BudgetError, match="expected"):
        ShareSchedule(8, starts, shares)


@pytest.mark.parametrize("layers", range(4, 16))
def test_a_decoder_too_shallow_for_the_default_stages_is_told_which_would_fit(layers):
    with pytest.raises(BudgetError, match=r"name others, such as .* \(--starts, or PruningOptions\(starts=") as refused:
        solve_schedule(parse_budget("50%"), 576, layers)
    told = re.search(r"such as ([\d,]+)", str(refused.value))
    starts = tuple(int(part) for part in told[1].split(","))
    assert solve_schedule(parse_budget("50%"), 576, layers, starts).starts == starts
