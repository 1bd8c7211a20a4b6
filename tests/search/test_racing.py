"""Races: what is asked of whom, who may not be rejected, and that the promise holds where the means are known."""

from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.belief import kernels
from clasp_calib.search.strategies.race import Race, block_ends, race as blocks
from clasp_calib.search.strategies.strategy import DEFAULT, Observations

UNRELATED = [np.zeros((3, count, count)) + np.eye(count) for count in range(17)]
"""Candidates of which nothing is alike."""
SMALL = {"samples": st.integers(1, 80), "candidates": st.integers(1, 9), "seed": st.integers(0, 10**6)}


class Table:
    """Answers from a table of scores, and remembers what was asked."""

    def __init__(self, score, nll=None):
        self.score, self.nll, self.asked = score, nll, []

    def __call__(self, samples, live):
        self.asked.append((samples, tuple(live)))
        rows = np.ix_(list(samples), list(live))
        return Observations(self.score[rows], None if self.nll is None else self.nll[rows])


def race(samples, measure, *more):
    """A race whose questions are answered."""
    course = blocks(samples, *more)
    question = next(course)
    while True:
        try:
            question = course.send(measure(*question))
        except StopIteration as ended:
            return ended.value


def coin_flips(samples, candidates, seed):
    return (np.random.default_rng(seed).random((samples, candidates)) < 0.7).astype(float)


@given(st.integers(1, 5000), st.integers(1, 200), st.floats(1.01, 4))
@settings(deadline=None)
def test_blocks_grow_to_all_samples(samples, first, growth):
    ends = block_ends(samples, first, growth)
    assert all(a < b for a, b in pairwise(ends))
    assert ends[-1] == samples
    assert ends[0] == min(first, samples)


@given(**SMALL)
@settings(deadline=None)
def test_live_candidates_are_measured_once_in_order_and_the_default_survives(samples, candidates, seed):
    table = Table(coin_flips(samples, candidates, seed))
    told = []
    result = race(samples, table, Race(first=8), UNRELATED[candidates], told.append)
    assert tuple(told) == result.standings
    assert [s.start for s, _ in table.asked] == [0, *(s.stop for s, _ in table.asked[:-1])]
    lives = [live for _, live in table.asked]
    assert lives[0] == tuple(range(candidates))
    assert lives[1:] == [standing.live for standing in told[:-1]]
    for live, standing in zip(lives, told, strict=True):
        assert sorted([*standing.live, *standing.rejected]) == sorted(live)
        assert DEFAULT in standing.live
        assert standing.leader in standing.live
        assert 0 <= standing.confidence <= 1
        assert standing.evaluations == sum(
            len(part) * len(of) for part, of in table.asked if part.stop <= standing.samples
        )
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
    first = race(samples, Table(score), Race(first=8), UNRELATED[candidates])
    assert race(samples, Table(score), Race(first=8), UNRELATED[candidates]) == first


@pytest.mark.parametrize(("samples", "candidates"), [(1, 1), (1, 5), (200, 1)])
def test_races_with_little_to_race(samples, candidates):
    result = race(samples, Table(np.ones((samples, candidates))), Race(), UNRELATED[candidates])
    assert result.winner == 0


def margins(rng, samples, means):
    """Scores with these true means, and the NLLs of the margins that they come from; correlated within a sample."""
    own = rng.normal(size=(samples, len(means)))
    margin = (
        [NormalDist().inv_cdf(m) for m in means] + rng.normal(size=(samples, 1)) * 0.95 + own * (1 - 0.95**2) ** 0.5
    )
    return (margin > 0).astype(float), np.logaddexp(0, -3 * margin)


@pytest.mark.parametrize("with_nll", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_promise_holds_where_the_means_are_known(with_nll):
    """Of 60 races, 57 are expected to keep a promise of 95 %; fewer than 52 would be a chance of 1 in 100."""
    settings = Race(indifference=0.03)
    kept, spent = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        means = 0.8 - rng.exponential(0.05, 10)
        score, nll = margins(rng, 1200, means)
        result = race(1200, Table(score, nll if with_nll else None), settings, UNRELATED[10])
        if result.confidence >= settings.confidence:
            kept.append(means.max() - means[result.winner] <= settings.indifference)
            spent.append(result.evaluations / score.size)
    assert len(kept) >= 50
    assert sum(kept) >= len(kept) - 8
    assert np.mean(spent) < 0.5


def test_a_race_that_ran_out_of_samples_says_so():
    score, nll = margins(np.random.default_rng(0), 60, np.full(12, 0.8))
    result = race(60, Table(score, nll), Race(indifference=0.001), UNRELATED[12])
    assert result.confidence < 0.95
    assert result.seen[result.winner] == 60


def test_of_equal_candidates_the_first_wins():
    result = race(2000, Table(np.ones((2000, 4)), np.full((2000, 4), 0.1)), Race(), UNRELATED[4])
    assert result.winner == 0
    assert result.confidence >= 0.95
    assert result.evaluations < 2000 * 4


def test_a_hopeless_candidate_goes_soon():
    score = (np.random.default_rng(0).random((2000, 1)) < 0.9) * np.ones(3)
    score[:, 1] = 0
    result = race(2000, Table(score), Race(), UNRELATED[3])
    assert result.seen[1] <= 100
    assert result.winner == 0


def test_neighbours_speak_for_each_other():
    """On a smooth curve of means the same scores decide a race sooner when the race is told about rho."""
    rng = np.random.default_rng(2)
    rho = np.linspace(0, 1, 16)
    score, _ = margins(rng, 1500, 0.8 - 0.3 * (rho - 0.6) ** 2)
    told = race(1500, Table(score), Race(0.02), kernels([Candidate("own", (1.0,), r) for r in rho]))
    untold = race(1500, Table(score), Race(0.02), UNRELATED[16])
    assert told.confidence >= 0.95
    assert told.evaluations < untold.evaluations
