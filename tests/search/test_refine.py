"""Coordinate search: it climbs, it stays a mixture, and what it finds is judged with all others."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_searches import PRUNING, measuring, searched

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.search import belief
from clasp_calib.search.measuring import Fed
from clasp_calib.search.refine import STEPS, _neighbours, most, refined_from
from clasp_calib.search.strategies.strategy import Ask


class Hill:
    """Scores by how near a candidate is to a peak."""

    def __init__(self, weight, rho):
        self.weight, self.rho = weight, rho

    def scores(self, sample, live, pruning):
        assert pruning == PRUNING
        # Some samples are harder than others.
        level = 1 - int(sample.id.split()[1]) / 100
        return Scores(tuple(level - abs(c.alpha[1] - self.weight) - abs(c.rho - self.rho) for c in live))


HALF = Candidate("half", (0.5, 0.5), 0.5)


def climbing(root, hill):
    work = measuring(root, hill, count=2, classes=(("object", 12), ("text", 3)))
    work.classes["object"].candidates[1] = HALF
    return work


def test_it_climbs_and_says_what_it_tried(tmp_path):
    work = climbing(tmp_path, Hill(0.8, 0.5))
    work.measure([Ask("object", [2, 5, 7], [0, 1])])
    of = work.classes["object"]
    assert refined_from(work, "object", 1)
    # Two rounds of one step each: from half by 0.2 and by 0.1.
    means = np.nanmean(of.values[..., 0], axis=0)
    found = of.candidates[means.argmax()]
    assert found.alpha == pytest.approx((0.2, 0.8))
    assert found.rho == 0.5
    assert 0 < len(of.candidates) - 2 <= most(2)
    assert len({c.name for c in of.candidates}) == len(of.candidates)
    assert np.flatnonzero(of.asked.any(1)).tolist() == [2, 5, 7]
    assert len(work.classes["text"].candidates) == 2
    work._desk.journal.close()


def test_what_was_measured_nowhere_is_not_refined(tmp_path):
    work = climbing(tmp_path, Hill(0.8, 0.5))
    assert not refined_from(work, "object", 1)
    work._desk.journal.close()


def test_tuned_candidates_are_believed_and_shrunk_with_all_others(tmp_path):
    """The peak is off the grid: the choice is a tuned candidate, of which less is believed than was seen."""
    (plain,), (tuned,) = (
        searched(tmp_path / f"{refine}", Hill(0.8, 0.5), count=3, refine=refine).choices.values()
        for refine in (False, True)
    )
    assert plain.verdict.candidate < plain.space == 3
    assert tuned.candidate.prototype.startswith("refined")
    assert tuned.summary["refined"]
    assert len(tuned.verdict.probabilities) == len(tuned.courses) > 3
    assert 0 < tuned.verdict.gain <= tuned.verdict.own
    assert tuned.chosen.mean > plain.chosen.mean


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


@pytest.mark.parametrize("beside", [1, 2])
def test_tuned_candidates_do_not_change_the_method_that_the_space_is_believed_by(tmp_path, monkeypatch, beside):
    """The bound lies at the two candidates of the space, at one budget or at two."""
    monkeypatch.setattr(belief, "WORK", 2 * (2 * beside) ** 3)
    work = climbing(tmp_path, Hill(0.8, 0.5))
    work.measure([Ask("object", [2, 5, 7], [0, 1]), Ask("text", [0, 1], [0, 1])])
    if beside == 2:
        work._fed = [Fed("4", dict(zip(work.classes, work.signals(), strict=True)))]
        work._believed = None
    plain = work.belief()
    refined_from(work, "object", 1)
    tuned, _ = work.with_tuned("object")
    assert (tuned.method, tuned.budgets[0]) == (plain.method, plain.budgets[0])
    assert (plain.method, len(plain.budgets[0])) == ("pooled", beside)
    work._desk.journal.close()
