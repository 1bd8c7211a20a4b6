"""One class's search: what is chosen on which evidence, and that nothing is measured twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_searches import Fake, measuring, samples

from clasp_calib.calib.studies.intervals import Clusters, interval
from clasp_calib.search.confirm import FINALISTS
from clasp_calib.search.engine import search_class
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.halving import Halving
from clasp_calib.search.strategies.tpe import TPE
from clasp_calib.search.strategies.two_step import TwoStep

RACE = Halving(first=3)


def search(root, fake, count=6, strategy=RACE, **more):
    work = measuring(root, fake, count=count, **more)
    try:
        return search_class(work, strategy, seed=0)
    finally:
        work.desk.journal.close()


def by_split(calibration, selection):
    """Every sample of a split gives a candidate the same."""
    return lambda split, number, sample: (calibration if split == "calibration" else selection)[number]


def test_a_candidate_that_surely_gains_is_chosen(tmp_path):
    choice = search(tmp_path, Fake(by_split([0.5, 0.1, 0.9, 0.8], [0.5, 0, 0.6, 0.7])), 4)
    assert choice.candidate.prototype == "p2"
    assert (choice.calibration, choice.selection, choice.selection_default) == pytest.approx((0.9, 0.6, 0.5))
    # All twelve pictures gain, which luck does once in 4096 times.
    assert choice.gain.chance == pytest.approx(2**-12)
    assert choice.gain.interval.mean == pytest.approx(0.1)
    assert not choice.gain.is_noise


def test_of_several_that_gain_the_best_on_all_samples_is_chosen(tmp_path):
    worth = by_split([0.5, 0.1, 0.9, 0.8], [0.5, 0, 0.6, 0.65])
    assert search(tmp_path, Fake(worth), 4, Grid()).candidate.prototype == "p2"
    worth = by_split([0.5, 0.1, 0.9, 0.8], [0.5, 0, 0.6, 1])
    assert search(tmp_path / "b", Fake(worth), 4, Grid()).candidate.prototype == "p3"


@pytest.mark.parametrize("selection", [[0.5, 0, 0.5, 0.5], [0.5, 0, 0.4, 0.1], [1, 1, 1, 1]])
def test_the_default_stays_unless_it_is_beaten_on_selection(tmp_path, selection):
    choice = search(tmp_path, Fake(by_split([0, 0.1, 0.9, 0.8], selection)), 4)
    assert choice.candidate.prototype == "own"
    assert choice.selection == choice.selection_default == selection[0]
    assert choice.gain.is_noise


def test_a_gain_that_may_be_luck_keeps_the_default_and_is_on_record(tmp_path):
    def worth(split, number, sample):
        # p1 is right on two of twelve selection samples on which the default is wrong, and wrong on one.
        return number == 1 if split == "calibration" else (sample < 2 if number == 1 else sample == 5)

    choice = search(tmp_path, Fake(worth), 2)
    assert choice.candidate.prototype == "own"
    assert choice.courses[choice.leader].candidate.prototype == "p1"
    assert choice.gain.interval.mean == pytest.approx(1 / 12)
    # Of 8 ways to flip three signs those with a sum of at least 1: one of all plus, three of one minus.
    assert choice.gain.chance == pytest.approx(4 / 8)
    assert choice.best.prototype == "p1"
    assert choice.summary["gain"]["noise"] is True


def test_copies_under_other_names_are_no_evidence_either(tmp_path):
    def worth(split, number, sample):
        return {0: 0.0, 1: 1.0}[number] if split == "calibration" or sample % 4 else 0.0

    apart = samples("selection", 20)
    copies = tuple(replace(sample, group=f"content {int(sample.id) % 4}") for sample in apart)
    alone, together = (
        search(tmp_path / name, Fake(worth), 2, selection=given) for name, given in (("a", apart), ("b", copies))
    )
    assert alone.gain.chance < 0.001
    assert together.gain.chance > 0.1


def test_few_pictures_are_no_evidence_however_many_questions(tmp_path):
    worth = by_split([0, 1], [0, 1])
    sure = search(tmp_path / "a", Fake(worth), 2, selection=samples("selection", 20))
    doubtful = search(tmp_path / "b", Fake(worth), 2, selection=samples("selection", 20, pictures=4))
    assert (sure.candidate.prototype, doubtful.candidate.prototype) == ("p1", "own")
    assert doubtful.gain.chance == pytest.approx(1 / 16)


def test_the_interval_of_the_gain_is_the_bootstrap_by_picture(tmp_path):
    def worth(split, number, sample):
        return (number * 7 + sample * 5) % 3 == 0 if split == "selection" else number == 1

    choice = search(tmp_path, Fake(worth), 2, Grid())
    final, default = (choice.courses[c].selection for c in (1, 0))
    gains = [one - other for one, other in zip(final, default, strict=True)]
    assert choice.gain.interval == interval(np.array(gains), Clusters.of(range(12), 0), "gains")


def test_only_finalists_are_asked_about_selection_samples(tmp_path):
    fake = Fake(by_split([0, 0.1, 0.9, 0.8, 0.7, 0.2], [0, 1, 0.5, 0.25, 1, 1]))
    assert search(tmp_path, fake).candidate.prototype == "p2"
    assert {number for number, sample in fake.asked if sample.startswith("selection")} == {0, 2, 3}
    fake = Fake(by_split([0, 0.1, 0.9, 0.8, 0.7, 0.2], [0, 1, 0.5, 0.25, 1, 1]))
    search(tmp_path / "grid", fake, strategy=Grid())
    assert {number for number, sample in fake.asked if sample.startswith("selection")} == {0, 2, 3, 4}


def test_without_selection_samples_the_strategy_decides(tmp_path):
    choice = search(tmp_path / "a", Fake(by_split([0.5, 0.1, 0.9, 0.8], None)), 4, selection=())
    assert (choice.candidate.prototype, choice.selection, choice.selection_default) == ("p2", None, None)
    assert choice.gain is None
    equal = search(tmp_path / "b", Fake(by_split([0.5, 0.5, 0.5], None)), 3, selection=())
    assert equal.candidate.prototype == "own"


def test_alone_the_default_is_chosen(tmp_path):
    choice = search(tmp_path, Fake(by_split([0.5], [0.5])), 1)
    assert (choice.winner, choice.gain, choice.best.prototype) == (0, None, "own")


def noise(split, number, sample):
    return hash((number, sample, split == "selection")) % 3 == 0


STRATEGIES = [RACE, Grid(), TwoStep(), TPE(trials=4, samples=5, keep=2)]


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(STRATEGIES))
@settings(deadline=None, max_examples=10)
def test_a_killed_search_measures_nothing_twice_and_chooses_the_same(tmp_path_factory, first, second, strategy):
    root = tmp_path_factory.mktemp("study")
    undisturbed = Fake(noise, nll=True)
    expected = search(root / "undisturbed", undisturbed, strategy=strategy)
    assert expected.evaluations == len(undisturbed.asked)
    asked = []
    for life in (first, second, 10**9):
        fake = Fake(noise, life, nll=True)
        try:
            choice = search(root / "killed", fake, strategy=strategy)
        except KeyboardInterrupt:
            pass
        else:
            assert choice == expected
        asked += fake.asked
    assert asked == undisturbed.asked
    assert search(root / "killed", Fake(noise, life=0), strategy=strategy) == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_bounds_the_evaluations(tmp_path, strategy):
    most = strategy.most(6, 12) + 12 * (FINALISTS + 1)
    assert search(tmp_path, Fake(noise), strategy=strategy).evaluations <= most


def test_likelihoods_do_not_count_in_the_final(tmp_path):
    """Under another objective p2 leads by far, but the final is by the metric, and there p1 is better."""
    worth = by_split([-9, -2, -0.1], [0, 1, 0.5])
    assert search(tmp_path / "a", Fake(worth), 3, Grid(), objective="nll").candidate.prototype == "p1"
    worth = by_split([0.1, 0.8, 0.99], [0, 0.55, 0.5])
    assert search(tmp_path / "b", Fake(worth), 3, Grid(), objective="metric").candidate.prototype == "p2"


def test_without_answers_the_final_is_by_the_objective(tmp_path):
    class Undecoded(Fake):
        def scores(self, sample, live, pruning, generate):
            assert not generate
            return super().scores(sample, live, pruning, sample.split == "selection")

    bare = tuple(replace(sample, id=f"9{sample.id}", answers=()) for sample in samples("selection", 12))
    choice = search(tmp_path, Undecoded(by_split([-2, -1], [-3, -1])), 2, Grid(), objective="kl", selection=bare)
    assert (choice.candidate.prototype, choice.selection, choice.selection_default) == ("p1", -1, -3)
