"""What every strategy promises, whatever it asks: bounded, repeatable, and finalists that saw all samples."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import InputError
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.race import Race
from clasp_calib.search.strategies.registry import STRATEGIES, describe, strategy_of
from clasp_calib.search.strategies.strategy import DEFAULT, Observations, Problem, ranked
from clasp_calib.search.strategies.tpe import TPE
from clasp_calib.search.strategies.two_step import TwoStep

ALL = [Grid(), Race(first=4), Halving(first=3), TwoStep(), TPE(trials=7, samples=4, keep=2)]
RHOS = (0.25, 0.5, 0.75, 1.0)


def product(mixtures, rhos=RHOS):
    """The default, and every one of some mixtures of two layers with every rho."""
    weights = [(w, 1 - w) for w in np.linspace(1, 0, mixtures)]
    default = Candidate("own", weights[0], 1.0)
    every = [Candidate(f"w{w[0]:.3f}", w, rho) for w in weights for rho in rhos]
    return [default, *(c for c in every if c != default)]


class Measured:
    """Answers from a table ``[samples, candidates]``; counts what is asked."""

    def __init__(self, table):
        self.table, self.asked, self.rejected = table, [], []

    def __call__(self, samples, live):
        assert len(set(live)) == len(live)
        self.asked += [(sample, candidate) for sample in samples for candidate in live]
        assert not {c for _, c in self.asked[-len(live) :]} & set(self.rejected), "asked for what it rejected"
        return Observations(self.table[np.ix_(list(samples), list(live))])


def searched(strategy, candidates, table, seed=0):
    measured = Measured(table)
    found = strategy.search(Problem(candidates, len(table), measured, seed, measured.rejected.extend))
    return found, measured


@pytest.mark.parametrize("strategy", ALL, ids=describe)
@given(mixtures=st.integers(1, 6), samples=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_every_strategy_is_bounded_and_repeatable(strategy, mixtures, samples, seed):
    candidates = product(mixtures)
    table = np.random.default_rng(seed).integers(0, 2, (samples, len(candidates))).astype(float)
    found, measured = searched(strategy, candidates, table, seed)
    different = set(measured.asked)
    assert len(different) <= strategy.most(len(candidates), samples)
    assert len(found) == len(set(found)) >= 1
    seen = {c: {sample for sample, asked in different if asked == c} for c in {*found, DEFAULT}}
    assert all(of == set(range(len(of))) == seen[DEFAULT] for of in seen.values())
    assert len(seen[DEFAULT]) == samples or isinstance(strategy, Race)
    assert len(measured.rejected) == len(set(measured.rejected))
    assert not {*measured.rejected} & {*found, DEFAULT}
    means = table[: len(seen[DEFAULT])].mean(0)
    if not isinstance(strategy, Race):  # It ranks by what it believes of the true means.
        assert found == sorted(found, key=lambda c: (-means[c], c))
    again, repeated = searched(strategy, candidates, table, seed)
    assert (again, repeated.asked, repeated.rejected) == (found, measured.asked, measured.rejected)


@pytest.mark.parametrize("strategy", ALL, ids=describe)
def test_one_candidate_and_one_sample(strategy):
    found, _ = searched(strategy, product(1, (1.0,)), np.ones((1, 1)))
    assert found == [DEFAULT]


def test_the_grid_measures_everything():
    table = np.random.default_rng(0).random((5, 8))
    found, measured = searched(Grid(), product(2), table)
    assert len(set(measured.asked)) == table.size == Grid().most(8, 5)
    assert found == ranked(range(8), table)
    assert measured.rejected == []


def test_two_steps_find_what_is_best_in_each_and_measure_the_sum_of_both():
    candidates = product(5)
    worth = np.array([-abs(c.alpha[0] - 0.25) - abs(c.rho - 0.75) for c in candidates])
    found, measured = searched(TwoStep(), candidates, np.tile(worth, (3, 1)))
    assert found[0] == worth.argmax()
    # Five mixtures at the fixed ratio, four ratios of the winner (one of them was measured), and the default.
    assert len({c for _, c in measured.asked}) == 5 + 4 - 1 + 1


def test_two_steps_are_blind_to_an_interaction():
    candidates = product(2)
    worth = np.array([float((c.alpha[0], c.rho) == (0.0, 1.0)) + 0.1 * c.alpha[0] for c in candidates])
    found, _ = searched(TwoStep(rho=0.5), candidates, np.tile(worth, (3, 1)))
    assert found[0] != worth.argmax()


def test_two_steps_take_the_ratio_that_the_space_has():
    candidates = product(3, (0.1, 0.9))
    _, measured = searched(TwoStep(rho=0.2), candidates, np.zeros((2, len(candidates))))
    first = {c for _, c in measured.asked[: 2 * 4]}
    assert {candidates[c].rho for c in first - {DEFAULT}} == {0.1}


def test_tpe_finds_more_than_chance():
    """A smooth peak among 410 candidates: 40 tries must come nearer than 40 random ones mostly do."""
    candidates = product(41, tuple(np.linspace(0.1, 1, 10)))
    worth = np.array([-abs(c.alpha[0] - 0.3) - abs(c.rho - 0.6) for c in candidates])
    table = np.tile(worth, (4, 1))
    strategy = TPE(trials=40, samples=2, keep=2)
    ranks = [int((worth > worth[searched(strategy, candidates, table, seed)[0][0]]).sum()) for seed in range(5)]
    # The best of 40 random ones has about 9 better ones of 410.
    assert np.mean(ranks) < 5


def test_strategies_have_names_and_take_their_own_settings():
    for name in STRATEGIES:
        assert describe(strategy_of(name)).startswith(name)
    assert strategy_of("halving", first=9, rho=None) == Halving(first=9)
    assert strategy_of("two-step", first=None, rho=0.3) == TwoStep(0.3)
    with pytest.raises(InputError, match="the strategy race does not use rho, trials; leave out"):
        strategy_of("race", first=9, rho=0.3, trials=11)
    with pytest.raises(InputError, match="unknown strategy 'sha'; expected one of race, grid, tpe, two-step, halving"):
        strategy_of("sha")
