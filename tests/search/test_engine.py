"""A search of all classes: what is chosen on which evidence, and that nothing is measured twice."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_searches import Fake, candidates, desk, measuring, noise, searched

from clasp_calib.search.belief import believe, kernels, signal
from clasp_calib.search.measuring import Fed
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.pooled import Pooled
from clasp_calib.search.strategies.race import Race
from clasp_calib.search.strategies.strategy import Ask
from clasp_calib.search.strategies.tpe import TPE
from clasp_calib.search.strategies.two_step import TwoStep
from clasp_calib.search.verdict import decide

STRATEGIES = [Pooled(0.3), Pooled(until=2), Halving(first=3), Race(first=4), Grid(), TwoStep(), TPE(4, 5, 2)]
THREE = (("object", 12), ("text", 5), ("scene", 2))


def fixed(*worth):
    """Every sample gives a candidate the same."""
    return lambda label, number, sample: worth[number]


def test_the_candidate_of_the_highest_posterior_mean_is_chosen(tmp_path):
    found = searched(tmp_path, Fake(fixed(0.5, 0.1, 0.9, 0.8)), count=4)
    choice = found.choices["object"]
    assert choice.candidate == choice.leader == candidates(4)[2]
    assert (choice.chosen.mean, choice.default.mean) == (pytest.approx(0.9), pytest.approx(0.5))
    assert len(choice.chosen.scores) == len(choice.default.scores) == choice.samples == 12
    assert choice.evaluations == choice.exhaustive == 48
    assert choice.verdict.own == pytest.approx(0.4)
    assert found.everywhere == choice.candidate


def test_the_choice_is_that_of_the_belief_in_what_was_asked(tmp_path):
    table = np.random.default_rng(0).integers(0, 2, (12, 6)).astype(float)
    fake = Fake(lambda label, number, sample: table[sample, number], nll=True)
    choice = searched(tmp_path, fake, Halving(first=3)).choices["object"]
    seen = np.full((12, 6), np.nan)
    for number, sample in fake.asked:
        seen[int(sample.split()[1]), number] = table[int(sample.split()[1]), number]
    judged = [signal(seen, 2 - seen)]
    assert choice.verdict == decide(believe(judged, kernels(candidates(6))), judged)[0]
    assert [course.scores for course in choice.courses] == [tuple(c[~np.isnan(c)]) for c in seen.T]


def test_caution_keeps_the_default_unless_the_gain_is_sure(tmp_path):
    def worth(label, number, sample):
        return sample < 7 if number else sample < 6

    bold, cautious = (
        searched(tmp_path, Fake(worth), count=2, cautious=limit).choices["object"] for limit in (None, 0.01)
    )
    assert bold.candidate == bold.leader == cautious.leader == candidates(2)[1]
    assert cautious.candidate == candidates(2)[0]
    assert cautious.summary["leader"] == "p1/rho=0.5"
    assert cautious.verdict.gain == 0


def test_alone_the_default_is_chosen(tmp_path):
    for strategy in STRATEGIES:
        found = searched(tmp_path / type(strategy).__name__, Fake(fixed(0.5)), strategy, count=1)
        assert found.choices["object"].candidate == candidates(1)[0]


def test_one_setting_for_all_is_the_best_on_average_over_classes(tmp_path):
    worth = {"object": (0.0, 1.0, 0.8), "text": (0.0, 0.2, 0.7)}
    fake = Fake(lambda label, number, sample: worth[label][number])
    found = searched(tmp_path, fake, classes=(("object", 40), ("text", 8)), count=3)
    assert [choice.candidate.prototype for choice in found.choices.values()] == ["p1", "p2"]
    assert found.everywhere == candidates(3)[2]


@given(st.lists(st.integers(0, 12), min_size=10, max_size=10), st.sampled_from(STRATEGIES))
@settings(deadline=None, max_examples=2)
def test_a_search_killed_ten_times_measures_nothing_twice_and_finds_the_same(tmp_path_factory, lives, strategy):
    root = tmp_path_factory.mktemp("study")
    undisturbed = Fake(noise, nll=True)
    expected = searched(root / "undisturbed", undisturbed, strategy, classes=THREE)
    assert sum(choice.evaluations for choice in expected.choices.values()) == len(set(undisturbed.asked))
    asked = []
    for life in (*lives, 10**9):
        fake = Fake(noise, life, nll=True)
        try:
            found = searched(root / "killed", fake, strategy, classes=THREE)
        except KeyboardInterrupt:
            pass
        else:
            assert found == expected
        asked += fake.asked
    assert asked == undisturbed.asked
    assert len(asked) == len(set(asked))
    assert searched(root / "killed", Fake(noise, life=0), strategy, classes=THREE) == expected


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_a_strategy_bounds_the_evaluations_of_each_class(tmp_path, strategy):
    found = searched(tmp_path, Fake(noise), strategy, classes=THREE)
    for choice in found.choices.values():
        assert 0 < choice.evaluations <= strategy.most(6, choice.samples)


def test_the_exhaustive_choice_is_there_once_all_scores_are(tmp_path):
    few = searched(tmp_path, Fake(noise), Halving(first=3), classes=THREE)
    assert few.exhaustive == {}
    everything = searched(tmp_path, Fake(noise), Grid(), classes=THREE)
    assert everything.exhaustive == {label: choice.candidate for label, choice in everything.choices.items()}
    fake = Fake(noise)
    again = searched(tmp_path, fake, Halving(first=3), classes=THREE)
    assert fake.asked == []
    assert (again.choices, again.exhaustive) == (few.choices, everything.exhaustive)
    # Of more samples it says nothing.
    assert searched(tmp_path, Fake(noise), Halving(first=3), classes=(*THREE, ("action", 9))).exhaustive == {}


def test_other_budgets_are_evidence(tmp_path):
    at = desk(tmp_path)
    searched_before = Fed("4", {"object": np.tile([0.0, 1.0, 0, 0, 0, 0], (50, 1))})
    at.journal.close()
    alone = searched(tmp_path, Fake(noise), Pooled(0.1))
    fed = searched(tmp_path, Fake(noise), Pooled(0.1), fed=[searched_before])
    assert (alone.fed, fed.fed) == ([], ["4"])
    assert fed.choices["object"].candidate == candidates(6)[1]
    best = candidates(6).index(fed.choices["object"].candidate)
    shares = [found.choices["object"].verdict.probabilities[best] for found in (alone, fed)]
    assert shares[1] > shares[0]


def test_what_the_journal_knows_of_a_budget_is_its_evidence(tmp_path):
    at = measuring(tmp_path, Fake(noise, nll=True), classes=THREE)
    at.measure([Ask("text", [1, 3], [0, 2]), Ask("object", [0], [1, 2, 3])])
    fed = at._desk.evidence()
    assert list(fed.tables) == ["object", "text"]
    assert np.argwhere(~np.isnan(fed.tables["text"])).tolist() == [[1, 0], [1, 2], [3, 0], [3, 2]]
    for judged, of in zip(fed.tables.values(), at.signals()[:2], strict=True):
        assert np.array_equal(judged, of, equal_nan=True)
    at._desk.journal.close()


def test_an_answer_has_no_likelihoods_unless_all_are_known(tmp_path):
    at = measuring(tmp_path, Fake(noise))
    assert at.measure([Ask("object", [0, 1], [2])])[0].nll is None
    at._desk.journal.close()
    at = measuring(tmp_path, Fake(noise, nll=True))
    first, second = at.measure([Ask("object", [0, 2], [2]), Ask("object", [1, 3], [4, 1])])
    assert first.nll is None, "one of them was recorded without"
    assert second.nll.tolist() == (2 - second.score).tolist()
    assert second.score.tolist() == [[noise("object", c, s) for c in (4, 1)] for s in (1, 3)]
    at._desk.journal.close()
