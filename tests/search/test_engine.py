"""One class's search: what is chosen on which evidence, and that nothing is measured twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clasp_calib.calib.candidate import Candidate
from clasp_calib.calib.evaluator import Pruning
from clasp_calib.calib.scores import Scores
from clasp_calib.common.samples import Sample
from clasp_calib.search.engine import FINALISTS, search_class
from clasp_calib.search.ledger import Ledger, open_storage
from clasp_calib.search.strategies.halving import Halving

PRUNING = Pruning(None)
CALIBRATION = [Sample(f"calibration-{i}", "?") for i in range(12)]
SELECTION = [Sample(f"selection-{i}", "?") for i in range(4)]
RACE = Halving(first=3, eta=2.0)


def candidates(count):
    return [Candidate("own", (1.0,), 1.0), *(Candidate(f"p{i}", (1.0,), 0.5) for i in range(1, count))]


class Fake:
    """Scores by ``worth(split, candidate's number, sample)``; ends the process' life after ``life`` calls."""

    def __init__(self, worth, life=10**9):
        self.worth, self.life, self.asked = worth, life, []

    def scores(self, sample, live, pruning):
        assert pruning is PRUNING
        if self.life == 0:
            raise KeyboardInterrupt
        self.life -= 1
        numbers = [0 if c.prototype == "own" else int(c.prototype[1:]) for c in live]
        self.asked += [(number, sample.id) for number in numbers]
        return Scores(tuple(self.worth(sample.id.split("-")[0], number, sample) for number in numbers))


def search(root, fake, count=6, selection=SELECTION, ticks=None, race=RACE):
    all_of = candidates(count)
    ledger = Ledger(open_storage(root), "8/object", all_of, {})
    tick = ticks.append if ticks is not None else (lambda answered: None)
    return search_class(fake, PRUNING, all_of, CALIBRATION, selection, ledger, race, 0, tick)


def by_split(calibration, selection):
    return lambda split, number, sample: (calibration if split == "calibration" else selection)[number]


def test_a_candidate_that_wins_both_splits_is_chosen(tmp_path):
    choice = search(tmp_path, Fake(by_split([0.5, 0.1, 0.9, 0.8], [0.5, 0, 0.6, 0.7])), 4)
    assert choice.candidate.prototype == "p2"
    assert (choice.calibration, choice.selection, choice.selection_default) == pytest.approx((0.9, 0.6, 0.5))


def test_of_several_that_beat_the_default_the_best_on_all_samples_is_chosen(tmp_path):
    worth = by_split([0.5, 0.1, 0.9, 0.8], [0.5, 0, 0.6, 0.7])
    assert search(tmp_path, Fake(worth), 4, race=Halving(first=12)).candidate.prototype == "p2"
    # Four samples count for less than twelve, but for something.
    worth = by_split([0.5, 0.1, 0.9, 0.8], [0.5, 0, 0.6, 1])
    assert search(tmp_path / "b", Fake(worth), 4, race=Halving(first=12)).candidate.prototype == "p3"


@pytest.mark.parametrize("selection", [[0.5, 0, 0.5, 0.5], [0.5, 0, 0.4, 0.1], [1, 1, 1, 1]])
def test_the_default_stays_unless_it_is_beaten_on_selection(tmp_path, selection):
    choice = search(tmp_path, Fake(by_split([0, 0.1, 0.9, 0.8], selection)), 4)
    assert choice.candidate.prototype == "own"
    assert choice.selection == choice.selection_default == selection[0]


def test_only_finalists_are_asked_about_selection_samples(tmp_path):
    fake = Fake(by_split([0, 0.1, 0.9, 0.8, 0.7, 0.2], [0, 1, 0.5, 0.25, 1, 1]))
    assert search(tmp_path, fake).candidate.prototype == "p2"
    assert {number for number, sample in fake.asked if sample.startswith("selection")} <= {0, 2, 3}


def test_without_selection_samples_the_race_decides(tmp_path):
    choice = search(tmp_path / "a", Fake(by_split([0.5, 0.1, 0.9, 0.8], None)), 4, selection=[])
    assert (choice.candidate.prototype, choice.selection, choice.selection_default) == ("p2", None, None)
    equal = search(tmp_path / "b", Fake(by_split([0.5, 0.5, 0.5], None)), 3, selection=[])
    assert equal.candidate.prototype == "own"


def noise(split, number, sample):
    return float(hash((number, len(sample.id), sample.id[-1] > "4", split == "selection", int(sample.id[-1]))) % 3 == 0)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None, max_examples=6)
def test_a_killed_search_measures_nothing_twice_and_chooses_the_same(tmp_path_factory, first, second):
    root = tmp_path_factory.mktemp("study")
    undisturbed, ticks = Fake(noise), []
    expected = search(root / "undisturbed", undisturbed, ticks=ticks)
    assert expected.evaluations == len(undisturbed.asked) == sum(ticks)
    asked = []
    for life in (first, second, 10**9):
        fake = Fake(noise, life)
        try:
            choice = search(root / "killed", fake)
        except KeyboardInterrupt:
            pass
        else:
            assert choice == expected
        asked += fake.asked
    assert sorted(asked) == sorted(undisturbed.asked)
    assert len(asked) == len(set(asked))
    silent = Fake(noise, life=0)
    ticks = []
    assert search(root / "killed", silent, ticks=ticks) == expected
    assert sum(ticks) == expected.evaluations


def test_a_sample_that_was_recorded_in_part_is_completed(tmp_path):
    expected = search(tmp_path / "a", Fake(noise))
    Ledger(open_storage(tmp_path / "b"), "8/object", candidates(6), {}).record(
        0, {c: noise("calibration", c, CALIBRATION[0]) for c in (1, 4)}
    )
    fake = Fake(noise)
    assert search(tmp_path / "b", fake) == expected
    assert [number for number, sample in fake.asked if sample == "calibration-0"] == [0, 2, 3, 5]


def test_the_plan_bounds_the_evaluations(tmp_path):
    most = RACE.most(6, len(CALIBRATION)) + len(SELECTION) * (FINALISTS + 1)
    assert search(tmp_path, Fake(noise)).evaluations <= most
