"""What every strategy promises, whatever it asks: bounded, repeatable, and all classes at once."""

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.common.errors import InputError
from clasp_calib.search.belief import believe, kernels
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.pooled import BLOCK, Pooled, _Blocks
from clasp_calib.search.strategies.race import Race
from clasp_calib.search.strategies.registry import STRATEGIES, describe, fitting, strategy_of
from clasp_calib.search.strategies.strategy import DEFAULT, Observations, Problem
from clasp_calib.search.strategies.tpe import TPE
from clasp_calib.search.strategies.two_step import TwoStep

ALL = [Pooled(), Pooled(0.4, until=1.0), Grid(), Race(first=4), Halving(first=3), TwoStep(), TPE(7, 4, 2)]
RHOS = (0.25, 0.5, 0.75, 1.0)


def product(mixtures, rhos=RHOS):
    """The default, and every one of some mixtures of two layers with every rho."""
    weights = [(w, 1 - w) for w in np.linspace(1, 0, mixtures)]
    default = Candidate("own", weights[0], 1.0)
    every = [Candidate(f"w{w[0]:.3f}", w, rho) for w in weights for rho in rhos]
    return [default, *(c for c in every if c != default)]


class Measured:
    """Answers from a table ``[samples, candidates]`` a class; counts what is asked, and believes it."""

    def __init__(self, tables, candidates):
        self.tables, self.kernels = tables, kernels(candidates)
        self.seen = {label: np.full(table.shape, np.nan) for label, table in tables.items()}
        self.asked, self.rejected, self.rounds = [], [], 0

    def measure(self, asks):
        self.rounds += 1
        assert len({(ask.label, sample) for ask in asks for sample in ask.samples}) == sum(len(a.samples) for a in asks)
        return [self.answer(ask) for ask in asks]

    def answer(self, ask):
        assert len(set(ask.live)) == len(ask.live) > 0
        rows = np.ix_(list(ask.samples), list(ask.live))
        new = [(ask.label, sample, candidate) for sample in ask.samples for candidate in ask.live]
        assert not {(label, candidate) for label, _, candidate in new} & set(self.rejected), (
            "asked for what it rejected"
        )
        self.asked += new
        self.seen[ask.label][rows] = self.tables[ask.label][rows]
        return Observations(self.tables[ask.label][rows])

    def belief(self):
        return believe(list(self.seen.values()), self.kernels)

    def reject(self, label, candidates):
        self.rejected += [(label, candidate) for candidate in candidates]

    def leaders(self):
        """What would be chosen."""
        belief = self.belief()
        return [belief.leader(number) for number in range(len(self.tables))]

    def candidates(self, label="a"):
        """Those of a class that were asked."""
        return {candidate for of, _, candidate in self.asked if of == label}


def searched(strategy, candidates, *tables, seed=0):
    measured = Measured(dict(zip("abcdefghi", tables)), candidates)  # noqa: B905
    sizes = {label: len(table) for label, table in measured.tables.items()}
    strategy.search(Problem(candidates, sizes, measured.measure, measured.belief, measured.reject, seed))
    return measured


def coins(seed, samples, candidates):
    return np.random.default_rng(seed).integers(0, 2, (samples, candidates)).astype(float)


@pytest.mark.parametrize(
    "strategy",
    [pytest.param(of, id=describe(of), marks=pytest.mark.slow if of == ALL[1] else []) for of in ALL],
)
@given(
    mixtures=st.integers(1, 6), samples=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=st.integers(0, 99)
)
@settings(max_examples=10, deadline=None)
def test_every_strategy_is_bounded_and_repeatable(strategy, mixtures, samples, seed):
    candidates = product(mixtures)
    tables = [coins([seed, n], size, len(candidates)) for n, size in enumerate(samples)]
    measured = searched(strategy, candidates, *tables, seed=seed)
    for label, size in zip("abc", samples, strict=False):
        different = {one for one in measured.asked if one[0] == label}
        assert 0 < len(different) <= strategy.most(len(candidates), size)
        assert DEFAULT in measured.candidates(label)
        assert (label, DEFAULT) not in measured.rejected
    assert len(measured.rejected) == len(set(measured.rejected))
    again = searched(strategy, candidates, *tables, seed=seed)
    assert (again.asked, again.rejected) == (measured.asked, measured.rejected)


@given(st.integers(0, 99), st.floats(13, 400))
def test_what_is_dear_is_measured_less(seed, until):
    costs = [1.0] * 6 + [2.5] * 7
    blocks = _Blocks(20, costs, (seed,))
    asked = [candidate for of in blocks.plan(until).values() for candidate in of]
    spent = sum(costs[candidate] for candidate in asked)
    assert spent <= until + 1e-6
    assert until > sum(costs) * 20 or until - spent < BLOCK * 2.5
    counts = np.bincount(asked, minlength=13)
    # Two looks are one too many for a candidate that costs more than twice as much.
    assert counts[1:6].min() >= counts[6:].max() - 1
    assert counts.sum() == sum(map(len, _Blocks(20, costs, (seed,)).plan(until).values()))


@given(st.integers(2, 41), st.integers(1, 12), st.integers(0, 99), st.booleans())
@example(9, 3, 0, False)
@example(17, 6, 0, False)
@example(25, 8, 0, True)
def test_nobody_goes_unseen(count, samples, seed, dear):
    """However few samples there are; and no sample is begun for one candidate, which would say nothing."""
    costs = [1 + 1.5 * dear * (candidate % 2) for candidate in range(count)]
    planned = _Blocks(samples, costs, (seed,)).plan(sum(costs))
    assert sorted(candidate for block in planned.values() for candidate in block) == list(range(count))
    assert min(map(len, planned.values())) >= 2


@pytest.mark.parametrize("count", [9, 17, 25])
@pytest.mark.parametrize("samples", [3, 6, 8])
def test_a_pooled_search_measures_every_candidate(count, samples):
    measured = searched(Pooled(), product(count, (0.5,))[:count], coins(0, samples, count))
    assert measured.candidates() == {*range(count)}


def test_a_cost_that_all_share_is_none():
    candidates, table = product(3), coins(0, 20, len(product(3)))
    asked = []
    for costs in ((), [1.0] * len(candidates)):
        of = Measured({"a": table}, candidates)
        Pooled().search(Problem(candidates, {"a": 20}, of.measure, of.belief, of.reject, 0, costs))
        asked.append(of.asked)
    assert asked[0] == asked[1]


def test_one_look_at_every_candidate_is_not_enough():
    """No candidate was measured twice after the first round, so that nothing shows how much is luck."""
    measured = searched(Pooled(until=2.0), product(5), *(coins(seed, 8, 20) for seed in range(4)))
    assert measured.rounds > 3


@pytest.mark.parametrize("strategy", ALL, ids=describe)
@pytest.mark.parametrize(("samples", "rhos"), [(1, (1.0,)), (2, (0.5, 1.0)), (8, (0.5, 1.0)), (1, RHOS)])
def test_little_to_search(strategy, samples, rhos):
    candidates = product(1, rhos)
    measured = searched(strategy, candidates, np.ones((samples, len(candidates))))
    assert measured.leaders() == [DEFAULT]


def test_classes_are_asked_side_by_side():
    """The rounds of all classes are as many as those of one of them."""
    candidates = product(3)
    tables = [coins(n, 12, len(candidates)) for n in range(3)]
    for strategy in ALL:
        alone = max(searched(strategy, candidates, table).rounds for table in tables)
        assert searched(strategy, candidates, *tables).rounds <= max(alone, 11 if strategy == ALL[1] else 4)


def test_the_grid_measures_everything():
    measured = searched(Grid(), product(2), coins(0, 5, 8), coins(1, 3, 8))
    assert len(set(measured.asked)) == 5 * 8 + 3 * 8 == Grid().most(8, 5) + Grid().most(8, 3)
    assert measured.rejected == []


def test_two_steps_find_what_is_best_in_each_and_measure_the_sum_of_both():
    candidates = product(5)
    worth = np.array([-abs(c.alpha[0] - 0.25) - abs(c.rho - 0.75) for c in candidates])
    measured = searched(TwoStep(), candidates, np.tile(worth, (3, 1)))
    assert measured.leaders() == [worth.argmax()]
    # Five mixtures at the fixed ratio, four ratios of the winner (one of them was measured), and the default.
    assert len(measured.candidates()) == 5 + 4 - 1 + 1


def test_two_steps_are_blind_to_an_interaction():
    candidates = product(2)
    worth = np.array([float((c.alpha[0], c.rho) == (0.0, 1.0)) + 0.1 * c.alpha[0] for c in candidates])
    measured = searched(TwoStep(rho=0.5), candidates, np.tile(worth, (3, 1)))
    assert worth.argmax() not in measured.candidates()


def test_two_steps_take_the_ratio_that_the_space_has():
    candidates = product(3, (0.1, 0.9))
    measured = searched(TwoStep(rho=0.2), candidates, np.zeros((2, len(candidates))))
    first = {c for _, _, c in measured.asked[: 2 * 4]}
    assert {candidates[c].rho for c in first - {DEFAULT}} == {0.1}


def test_tpe_finds_more_than_chance():
    """A smooth peak among 410 candidates: 40 tries must come nearer than 40 random ones mostly do."""
    candidates = product(41, tuple(np.linspace(0.1, 1, 10)))
    worth = np.array([-abs(c.alpha[0] - 0.3) - abs(c.rho - 0.6) for c in candidates])
    ranks = []
    for seed in range(5):
        measured = searched(TPE(40, 2, 2), candidates, np.tile(worth, (4, 1)), seed=seed)
        ranks.append(int((worth > worth[list(measured.candidates())].max()).sum()))
    # The best of 40 random ones has about 9 better ones of 410.
    assert np.mean(ranks) < 5


def test_strategies_have_names_and_take_their_own_settings():
    for name in STRATEGIES:
        assert describe(strategy_of(name)).startswith(name)
    assert strategy_of("halving", first=9, rho=None) == Halving(first=9)
    assert strategy_of("two-step", first=None, rho=0.3) == TwoStep(0.3)
    assert describe(strategy_of("pooled", until=0.5)) == "pooled, spend 1, until 0.5"
    assert describe(Pooled()) == "pooled, spend 0.15"
    with pytest.raises(InputError, match="the strategy race does not use rho, trials; leave out"):
        strategy_of("race", first=9, rho=0.3, trials=11)
    with pytest.raises(InputError, match="unknown strategy 'sha'; expected one of pooled, race, grid, tpe, two-step"):
        strategy_of("sha")


def test_with_thousands_of_samples_a_race_is_chosen():
    assert fitting([8, 36, 900]) == Pooled()
    assert fitting([1, 3001, 3001]) == Race()
