"""Settings compared on the same samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.calib.studies.comparison import MACRO, Comparison, Setting, compare
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.crew.local_workers import InProcess

GOOD, BAD = Candidate("good", (1.0,), 1.0), Candidate("bad", (1.0,), 0.5)


class Fake:
    """Scores a sample by the candidate's name and the sample's id."""

    def __init__(self):
        self.calls = []

    def scores(self, sample, candidates, pruning):
        self.calls.append((sample.id, len(candidates)))
        return Scores(tuple(float(candidate.name in sample.id) for candidate in candidates))


def samples(label, *ids):
    return [Sample(i, "?", Path(f"{label}-{number // 2}.png"), label=label) for number, i in enumerate(ids)]


@pytest.fixture
def comparison():
    both = f"{GOOD.name} {BAD.name}"
    table = {
        "object": samples("object", f"0 {GOOD.name}", f"1 {GOOD.name}", "2", f"3 {both}"),
        "text": samples("text", f"4 {GOOD.name}", f"5 {both}"),
    }
    settings = [
        Setting("better", Pruning(None), {"object": GOOD, "text": GOOD}),
        Setting("worse", Pruning(None), {"object": BAD, "text": BAD}),
        Setting("mixed", Pruning(None), {"object": BAD, "text": GOOD}),
    ]
    return compare(Scorer(InProcess(Fake())), settings, table, seed=0)


def test_settings_that_prune_alike_share_a_forward_and_equal_candidates_a_row():
    fake = Fake()
    settings = [
        Setting("one", Pruning(None), {"object": GOOD}),
        Setting("two", Pruning(None), {"object": BAD}),
        Setting("three", Pruning(None), {"object": GOOD}),
        Setting("apart", Pruning(None, PruningOptions(raters="all")), {"object": GOOD}),
    ]
    found = compare(Scorer(InProcess(fake)), settings, {"object": samples("object", GOOD.name)}, seed=0)
    assert fake.calls == [(GOOD.name, 2), (GOOD.name, 1)]
    assert found.scores[:, 0].tolist() == [1.0, 0.0, 1.0, 1.0]


def test_means_are_by_class_and_macro(comparison):
    means = {setting: {label: found.mean for label, found in of.items()} for setting, of in comparison.table().items()}
    assert means == {
        "better": {"object": 0.75, "text": 1.0, MACRO: 0.875},
        "worse": {"object": 0.25, "text": 0.5, MACRO: 0.375},
        "mixed": {"object": 0.25, "text": 1.0, MACRO: 0.625},
    }
    assert {label: found.samples for label, found in comparison.table()["better"].items()} == {
        "object": 4,
        "text": 2,
        MACRO: 6,
    }


def test_differences_are_paired(comparison):
    gain = comparison.difference("better", "worse")
    assert {label: found.mean for label, found in gain.items()} == {"object": 0.5, "text": 0.5, MACRO: 0.5}
    same = comparison.difference("mixed", "better")["text"]
    assert same.mean == 0
    assert same.low < 0 < same.high  # of two questions, on which both are right
    back = comparison.difference("worse", "better")
    assert (back["object"].low, back["object"].high) == (-gain["object"].high, -gain["object"].low)


def test_copies_under_other_names_are_one_cluster():
    table = {"object": [replace(s, group="the same") for s in samples("object", "0", "1", "2", "3")]}
    compared = compare(Scorer(InProcess(Fake())), [Setting("any", Pruning(None), {"object": GOOD})], table, seed=0)
    assert set(compared.pictures) == {"the same"}


def test_a_constant_gain_is_certain_however_much_samples_differ():
    rng = np.random.default_rng(0)
    base = rng.random(40)
    pictures = tuple(str(i // 2) for i in range(40))
    comparison = Comparison(
        ("a", "b"), np.stack([base + 0.1, base]), ("object",) * 40, tuple(map(str, range(40))), pictures, 0
    )
    gain = comparison.difference("a", "b")["object"]
    assert (gain.low, gain.high) == pytest.approx((0.1, 0.1))
    table = comparison.table()
    assert table["a"]["object"].low < table["b"]["object"].high


def test_samples_of_a_picture_are_scored_one_after_the_other_and_come_back_in_their_order():
    table = {label: samples("same", f"0 {label}", f"1 {label}", f"2 {label}") for label in ("object", "text")}
    fake = Fake()
    compared = compare(
        Scorer(InProcess(fake)), [Setting("any", Pruning(None), dict.fromkeys(table, GOOD))], table, seed=0
    )
    in_order = ["0 object", "1 object", "2 object", "0 text", "1 text", "2 text"]
    assert [asked for asked, _ in fake.calls] == [in_order[place] for place in (0, 1, 3, 4, 2, 5)]
    assert list(compared.samples) == in_order


def test_several_runs_become_one_setting(comparison):
    merged = comparison.averaged("mean", ["better", "mixed"])
    assert merged.settings == ("mean", "worse")
    expected = (comparison.rows(["better"]) + comparison.rows(["mixed"])) / 2
    assert merged.rows(["mean"]).tolist() == expected.tolist()
    assert merged.rows(["worse"]).tolist() == comparison.rows(["worse"]).tolist()
    assert comparison.settings == ("better", "worse", "mixed")


def test_the_interval_of_several_runs_knows_their_draws():
    """Repeated studies of a chance-like setting: its interval covers what it is worth about as often as it says."""
    rng, covered = np.random.default_rng(0), 0
    for study in range(200):
        worth = rng.beta(2, 2, 60)
        runs = (rng.random((3, 60)) < worth).astype(float)
        places = tuple(map(str, range(60)))
        one = Comparison(("a", "b", "c"), runs, ("object",) * 60, places, places, study)
        found = one.averaged("random", ["a", "b", "c"]).table()["random"]["object"]
        covered += found.low <= 0.5 <= found.high
    assert covered >= 180
