"""Early rejection: what it costs, whom it may not reject, and that it finds the best where nothing is noise."""

from itertools import pairwise

import numpy as np
from hypothesis import example, given, strategies as st

from clasp_calib.search.strategies.class_by_class import OneClass
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.strategy import DEFAULT, Observations

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


def searched(samples, candidates, first, eta, measured, rejected=lambda candidates: None):
    """Who is measured last."""
    course = Halving(first, eta).course(OneClass([None] * candidates, samples, rejected))
    question = next(course)
    while True:
        try:
            question = course.send(measured(*question))
        except StopIteration:
            return question[1]


def test_a_plan_by_hand():
    assert Halving(6, 2).plan(24, 40) == [(6, 12), (12, 6), (24, 3), (40, 1)]
    assert Halving(6, 2).most(24, 40) == 6 * 24 + 6 * 13 + 12 * 7 + 16 * 4
    assert Halving(6, 2).plan(24, 5) == [(5, 1)]
    assert Halving(6, 2).plan(1, 40) == [(40, 1)]


@given(**PLANS)
@example(samples=5, candidates=9, first=1, eta=1.1)
def test_a_plan_rises_to_all_samples_and_falls_to_one_candidate(samples, candidates, first, eta):
    seen, kept = zip(*Halving(first, eta).plan(candidates, samples), strict=True)
    assert all(a < b for a, b in pairwise(seen))
    assert list(kept) == sorted(kept, reverse=True)
    assert (seen[-1], kept[-1]) == (samples, 1)


@given(**PLANS, seed=st.integers(0, 10**6))
def test_the_default_survives_and_the_plan_bounds_the_cost(samples, candidates, first, eta, seed):
    measured = Measured(lambda candidate, sample: hash((seed, candidate, sample)) % 2)
    rejected = []
    ranked = searched(samples, candidates, first, eta, measured, rejected.extend)
    assert DEFAULT in ranked
    assert len(measured.asked) <= Halving(first, eta).most(candidates, samples)
    assert len(measured.asked) == len(set(measured.asked))
    assert sorted([*rejected, *ranked]) == list(range(candidates))
    for candidate in range(candidates):
        seen = [sample for asked, sample in measured.asked if asked == candidate]
        assert seen == list(range(len(seen)))
        ends = {end for end, _ in Halving(first, eta).plan(candidates, samples)}
        assert len(seen) == samples if candidate in ranked else len(seen) in ends


@given(**PLANS, data=st.data())
def test_without_noise_the_best_stay_and_of_equals_the_first(samples, candidates, first, eta, data):
    worth = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=candidates, max_size=candidates))
    left = searched(samples, candidates, first, eta, Measured(lambda candidate, sample: worth[candidate]))
    best = sorted(range(candidates), key=lambda c: (-worth[c], c))
    assert {*left} == {DEFAULT, *best[: len(left)]} or {*left} == {DEFAULT, *best[: len(left) - 1]}


def test_all_live_candidates_see_the_same_samples_in_order():
    measured = Measured(lambda candidate, sample: candidate == 2)
    searched(4, 3, 2, 3, measured)
    assert measured.asked == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (2, 2), (0, 3), (2, 3)]
