"""Coordinate search: it climbs, it stays a mixture, and it counts only if it wins where it was not tuned."""

import pytest
from hypothesis import given, strategies as st
from made_searches import PRUNING, measuring

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.search.engine import search_class
from clasp_calib.search.refine import STEPS, _neighbours, most, refined_from
from clasp_calib.search.strategies.grid import Grid


class Hill:
    """Scores by how near a candidate is to a peak; on selection samples perhaps to another."""

    def __init__(self, peak, elsewhere=None):
        self.peaks = {"calibration": peak, "selection": elsewhere or peak}

    def scores(self, sample, live, pruning, generate):
        assert pruning == PRUNING
        weight, rho = self.peaks[sample.split]
        return Scores(tuple(1 - abs(c.alpha[1] - weight) - abs(c.rho - rho) for c in live))


def climbing(root, hill):
    work = measuring(root, hill, count=2)
    work.candidates[1] = Candidate("half", (0.5, 0.5), 0.5)
    return work


def test_it_climbs_and_says_what_it_tried(tmp_path):
    work = climbing(tmp_path, Hill((0.8, 0.5)))
    work.observe(range(12), [0, 1])
    found = work.candidates[refined_from(work, 1)]
    # Two rounds of one step each: from half by 0.2 and by 0.1.
    assert found.alpha == pytest.approx((0.2, 0.8))
    assert found.rho == 0.5
    assert len(work.candidates) - 2 <= most(2)
    assert len({c.name for c in work.candidates}) == len(work.candidates)
    work.desk.journal.close()


def test_at_the_peak_there_is_nothing_to_refine(tmp_path):
    work = climbing(tmp_path, Hill((0.5, 0.5)))
    work.observe(range(12), [0, 1])
    assert refined_from(work, 1) is None
    work.desk.journal.close()


@pytest.mark.parametrize(("elsewhere", "accepted"), [((0.8, 0.5), True), ((0.5, 0.5), False)])
def test_what_was_refined_is_chosen_only_if_it_wins_on_other_samples(tmp_path, elsewhere, accepted):
    for _ in range(2):  # The second time everything is in the journal.
        work = climbing(tmp_path, Hill((0.8, 0.5), elsewhere))
        choice = search_class(work, Grid(), 0, refine=True)
        work.desk.journal.close()
        assert choice.candidate.prototype.split()[0] == ("refined" if accepted else "half")
        assert choice.refinement.is_noise != accepted
        assert choice.courses[choice.unrefined].candidate.prototype == "half"
        assert choice.summary["refined"] == accepted


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=5).filter(lambda w: sum(w) > 0.1),
    st.floats(0, 1),
    st.sampled_from(STEPS),
)
def test_neighbours_are_mixtures(weights, rho, steps):
    alpha = tuple(w / sum(weights) for w in weights)
    found = list(_neighbours(Candidate("c", alpha, rho), range(len(alpha)), *steps))
    assert 2 <= len(found) <= 2 * len(alpha) + 2
    for candidate in found:
        assert all(a >= 0 for a in candidate.alpha)
        assert sum(candidate.alpha) == pytest.approx(1, abs=1e-9)
        assert 0 <= candidate.rho <= 1
