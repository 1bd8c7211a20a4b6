"""Whether a gain is noise: against counting by hand, and the error that is promised."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.search.confirm import EXACT, LEVEL, chance


def slow_chance(gains, leader, pictures):
    """Every sign flip of every picture, in loops."""
    from itertools import product

    names = sorted(set(pictures))
    worse = 0
    for signs in product((1, -1), repeat=len(names)):
        flipped = [[signs[names.index(p)] * g for g in row] for p, row in zip(pictures, gains, strict=True)]
        largest = max(sum(row[f] for row in flipped) for f in range(len(gains[0])))
        worse += largest >= sum(row[leader] for row in gains) - 1e-9
    return worse / 2 ** len(names)


@given(st.integers(1, 14), st.integers(1, 3), st.integers(1, 7), st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_few_pictures_are_counted_exactly(samples, finalists, pictures, seed):
    rng = np.random.default_rng(seed)
    gains = rng.integers(-2, 3, (samples, finalists)) / 2
    of = rng.integers(0, pictures, samples).tolist()
    leader = int(rng.integers(finalists))
    assert chance(gains, leader, of, seed=0) == pytest.approx(slow_chance(gains.tolist(), leader, of))


def test_many_pictures_are_drawn_and_agree_with_counting():
    gains = np.random.default_rng(3).choice([-1.0, 1.0, 2.0], (EXACT + 1, 2))
    drawn = chance(gains, 0, range(len(gains)), seed=1, flips=40_000)
    assert drawn == pytest.approx(slow_chance(gains.tolist(), 0, list(range(len(gains)))), abs=0.01)
    assert chance(gains, 0, range(len(gains)), seed=1, flips=40_000) == drawn


def test_no_difference_is_no_evidence():
    assert chance(np.zeros((9, 2)), 0, range(9), seed=0) == 1


@pytest.mark.parametrize("finalists", [1, 3])
def test_the_default_is_left_for_nothing_as_seldom_as_promised(finalists):
    """Finalists that are no better than the default: the best of them passes in at most 5 % of the searches."""
    rng = np.random.default_rng(0)
    passed = []
    for seed in range(400):
        right = rng.random((60, finalists + 1)) < rng.random((60, 1))
        gains = right[:, 1:].astype(float) - right[:, :1]
        passed.append(chance(gains, int(gains.sum(0).argmax()), range(60), seed, flips=400) <= LEVEL)
    # 400 searches at 5 %: more than 32 has a probability of 0.3 %.
    assert sum(passed) <= 32
