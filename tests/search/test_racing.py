"""Races: what is asked of whom, who may not be rejected, and that the promise holds where the means are known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clasp_calib.search.racing import Observations, RaceSettings, block_ends, race

SMALL = {"samples": st.integers(1, 80), "candidates": st.integers(1, 9), "seed": st.integers(0, 10**6)}


class Table:
    """Answers from a table of scores, and remembers what was asked."""

    def __init__(self, score, nll=None):
        self.score, self.nll, self.asked = score, nll, []

    def __call__(self, samples, live):
        self.asked.append((samples, tuple(live)))
        rows = np.ix_(list(samples), list(live))
        return Observations(self.score[rows], None if self.nll is None else self.nll[rows])


def coin_flips(samples, candidates, seed):
    return (np.random.default_rng(seed).random((samples, candidates)) < 0.7).astype(float)


@given(st.integers(1, 5000), st.integers(1, 200), st.floats(1.01, 4))
def test_blocks_grow_to_all_samples(samples, first, growth):
    ends = block_ends(samples, first, growth)
    assert all(a < b for a, b in pairwise(ends))
    assert ends[-1] == samples
    assert ends[0] == min(first, samples)


@given(**SMALL, data=st.data())
@settings(deadline=None)
def test_live_candidates_are_measured_once_in_order_and_the_default_survives(samples, candidates, seed, data):
    default = data.draw(st.integers(0, candidates - 1))
    table = Table(coin_flips(samples, candidates, seed))
    told = []
    result = race(samples, candidates, table, RaceSettings(first=8), default=default, on_block=told.append)
    assert tuple(told) == result.standings
    assert [s.start for s, _ in table.asked] == [0, *(s.stop for s, _ in table.asked[:-1])]
    lives = [live for _, live in table.asked]
    assert lives[0] == tuple(range(candidates))
    assert lives[1:] == [standing.live for standing in told[:-1]]
    for live, standing in zip(lives, told, strict=True):
        assert sorted([*standing.live, *standing.rejected]) == sorted(live)
        assert default in standing.live
        assert standing.leader in standing.live
    assert sorted(result.ranked) == list(told[-1].live)
    assert result.winner == result.ranked[0]
    measured = np.zeros(candidates, int)
    for part, live in table.asked:
        measured[list(live)] += len(part)
    assert result.seen == tuple(measured)
    assert result.evaluations == measured.sum()


@given(**SMALL)
@settings(deadline=None, max_examples=25)
def test_the_same_scores_give_the_same_race(samples, candidates, seed):
    score = coin_flips(samples, candidates, seed)
    first = race(samples, candidates, Table(score), RaceSettings(first=8))
    assert race(samples, candidates, Table(score), RaceSettings(first=8)) == first


@pytest.mark.parametrize(("samples", "candidates"), [(1, 1), (1, 5), (200, 1)])
def test_races_with_little_to_race(samples, candidates):
    result = race(samples, candidates, Table(np.ones((samples, candidates))), RaceSettings())
    assert result.winner == 0


def test_equal_candidates_end_early_and_the_default_wins():
    result = race(2000, 20, Table(np.ones((2000, 20))), RaceSettings(), default=0)
    assert result.winner == 0
    assert result.confidence >= 0.95
    assert result.evaluations < 2000 * 20


def test_a_hopeless_candidate_goes_soon():
    score = np.ones((2000, 3))
    score[:, 1] = 0
    result = race(2000, 3, Table(score), RaceSettings(), default=0)
    assert result.seen[1] <= 100
    assert result.winner == 0
