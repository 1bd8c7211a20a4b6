import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tools.reference.measuring.evidence import Paired, holm, paired

RESAMPLES = 60
Questions = list[tuple[float, int, int]]
"""Difference, picture, group."""
SCORES = st.sampled_from([-1.0, 0.0, 1.0, 0.25])
QUESTIONS = st.lists(st.tuples(SCORES, st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=25)
P_VALUES = st.dictionaries(st.integers(), st.floats(0, 1), min_size=1, max_size=9)


def slow_paired(questions: Questions, seed: int) -> Paired:
    """One resample at a time, picture by picture."""
    pictures = list(dict.fromkeys(picture for _, picture, _ in questions))
    groups = list(dict.fromkeys(group for *_, group in questions))

    def mean_of_means(drawn: Sequence[tuple[float, int, int]]) -> float:
        means = []
        for group in groups:
            values = [value for value, _, g in drawn if g == group]
            values = values or [value for value, _, g in questions if g == group]
            means.append(math.fsum(values) / len(values))
        return math.fsum(means) / len(means)

    resampled = []
    times_of = np.random.default_rng(seed).multinomial(len(pictures), [1 / len(pictures)] * len(pictures), RESAMPLES)
    for times in times_of:
        drawn = [q for picture, n in zip(pictures, times, strict=True) for q in questions * n if q[1] == picture]
        resampled.append(mean_of_means(drawn))
    low, high = np.quantile(resampled, [0.025, 0.975])
    rarer = min(sum(m <= 1e-12 for m in resampled), sum(m >= -1e-12 for m in resampled))
    p = min(1.0, 2 * (1 + rarer) / (1 + RESAMPLES))
    return Paired(mean_of_means(questions), low, high, p, len(questions), len(pictures))


@given(QUESTIONS, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_it_is_what_a_plain_loop_gives(questions: Questions, seed: int) -> None:
    values, pictures, groups = map(list, zip(*questions, strict=True))
    found, expected = paired(values, pictures, groups, seed, RESAMPLES), slow_paired(questions, seed)
    assert vars(found) == pytest.approx(vars(expected), abs=1e-9)


@given(QUESTIONS)
@settings(max_examples=40, deadline=None)
def test_exchanging_the_settings_changes_signs_alone(questions: Questions) -> None:
    values, pictures, groups = map(list, zip(*questions, strict=True))
    one, other = paired(values, pictures, groups), paired([-value for value in values], pictures, groups)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), abs=1e-9)
    assert one.p == other.p


def test_no_difference_has_p_one_and_a_sure_one_a_small_p() -> None:
    assert paired([0.0] * 50, range(50)) == Paired(0.0, 0.0, 0.0, 1.0, 50, 50)
    assert paired([1.0] * 50, range(50)).p == pytest.approx(2 / 10_001)


def test_questions_about_one_picture_are_one_piece_of_evidence() -> None:
    values = [1.0] * 12 + [-1.0] * 4
    apart, together = paired(values, range(16)), paired(values, [i // 4 for i in range(16)])
    assert apart.difference == together.difference == 0.5
    assert together.p > 2 * apart.p
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_under_the_null_it_errs_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    pictures = [i // 3 for i in range(180)]
    effects = rng.choice([-1.0, 0.0, 0.0, 1.0], (300, 60)).repeat(3, axis=1)
    wrong = np.mean([paired(row, pictures, resamples=400).p < 0.05 for row in effects])
    assert 0.01 < wrong < 0.1


def test_nothing_to_test_is_refused() -> None:
    with pytest.raises(ValueError, match="no differences"):
        paired([], [])


@given(P_VALUES)
def test_holm_by_its_definition(p_values: dict[int, float]) -> None:
    ordered = sorted(p_values.values())
    found = holm(p_values)
    assert list(found) == list(p_values)
    for key, p in p_values.items():
        worst = max((len(ordered) - i) * q for i, q in enumerate(ordered) if q <= p)
        assert found[key] >= p
        assert found[key] == pytest.approx(min(1.0, worst))


def test_holm_of_a_textbook_family() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
