"""Early rejection: what it costs, whom it may not reject, and that it finds the best where nothing is noise."""

from itertools import pairwise

import numpy as np
from hypothesis import example, given, strategies as st

from clasp_calib.search.strategies.halving import Rung, cost, race, rungs
from clasp_calib.search.strategies.strategy import Observations

PLANS = {
    "samples": st.integers(1, 60),
    "candidates": st.integers(1, 30),
    "first": st.integers(1, 20),
    "eta": st.floats(1.1, 4),
}


class Measured:
    """Scores from a table, or noise; counts what is asked."""

    def __init__(self, score):
        self.score = score
        self.asked = []

    def __call__(self, samples, live):
        self.asked += [(candidate, sample) for sample in samples for candidate in live]
        return Observations(np.array([[float(self.score(c, sample)) for c in live] for sample in samples]))


def test_a_plan_by_hand():
    assert rungs(40, 24, 6, 2) == [Rung(6, 12), Rung(12, 6), Rung(24, 3), Rung(40, 1)]
    assert cost(rungs(40, 24, 6, 2), 24) == 6 * 24 + 6 * 13 + 12 * 7 + 16 * 4
    assert rungs(5, 24, 6, 2) == [Rung(5, 1)]
    assert rungs(40, 1, 6, 2) == [Rung(40, 1)]


@given(**PLANS)
@example(samples=5, candidates=9, first=1, eta=1.1)
def test_a_plan_rises_to_all_samples_and_falls_to_one_candidate(samples, candidates, first, eta):
    plan = rungs(samples, candidates, first, eta)
    seen, kept = [r.samples for r in plan], [r.keep for r in plan]
    assert all(a < b for a, b in pairwise(seen))
    assert kept == sorted(kept, reverse=True)
    assert (seen[-1], kept[-1]) == (samples, 1)


@given(**PLANS, seed=st.integers(0, 10**6), data=st.data())
def test_the_default_survives_and_the_plan_bounds_the_cost(samples, candidates, first, eta, seed, data):
    default = data.draw(st.integers(0, candidates - 1))
    plan = rungs(samples, candidates, first, eta)
    measured = Measured(lambda candidate, sample: hash((seed, candidate, sample)) % 2)
    rejected = []
    ranked = race(plan, candidates, measured, default, rejected.extend)
    assert default in ranked
    assert len(measured.asked) <= cost(plan, candidates)
    assert len(measured.asked) == len(set(measured.asked))
    assert sorted([*rejected, *ranked]) == list(range(candidates))
    for candidate in range(candidates):
        seen = [sample for asked, sample in measured.asked if asked == candidate]
        assert seen == list(range(len(seen)))
        assert len(seen) == samples if candidate in ranked else len(seen) in {r.samples for r in plan}


@given(**PLANS, data=st.data())
def test_without_noise_the_best_wins_and_of_equals_the_first(samples, candidates, first, eta, data):
    worth = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=candidates, max_size=candidates))
    measured = Measured(lambda candidate, sample: worth[candidate])
    ranked = race(rungs(samples, candidates, first, eta), candidates, measured)
    assert ranked[0] == worth.index(max(worth))
    assert ranked == sorted(ranked, key=lambda c: (-worth[c], c))


def test_all_live_candidates_see_the_same_samples_in_order():
    measured = Measured(lambda candidate, sample: candidate == 2)
    race([Rung(2, 1), Rung(4, 1)], 3, measured, default=1)
    assert measured.asked == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)]
