"""What ablations compare, on scores that are known beforehand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from made_artifacts import CONFIG, made

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.calib.studies.ablations import (
    ABLATIONS,
    VARIANTS,
    changed_at,
    measure_ablation,
)
from clasp_calib.calib.studies.misrouting import MISROUTED
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.calib.studies.subject import Subject
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample
from clasp_calib.crew.local_workers import InProcess

SAMPLES = {
    label: [Sample(f"{label}{n}", "?", image=f"{n}.png", label=label) for n in range(3)] for label in ("object", "text")
}


@pytest.fixture
def subject():
    artifact = made("50%")
    return Subject(CONFIG, artifact, artifact.budgets[0])


def test_settings_differ_from_the_calibrated_one_in_what_they_are_named_after(subject):
    for name, settings in VARIANTS.items():
        made_settings = settings(subject)
        names = [setting.name for setting in made_settings]
        assert len(set(names)) == len(names) > 1
        (full,) = (s for s in made_settings if s.name.startswith("calibrated"))
        for setting in made_settings:
            if setting is not full:
                assert (setting.pruning, setting.candidates) != (full.pruning, full.candidates)
            if name in ("parts", "rho", "layers"):
                assert setting.pruning == full.pruning
            else:
                assert setting.candidates == full.candidates
    parts = {setting.name: setting.candidates for setting in VARIANTS["parts"](subject)}
    for label in subject.artifact.classes:
        assert parts["fusion only"][label].alpha == parts["calibrated"][label].alpha
        assert parts["fusion only"][label].rho == 1.0
        assert parts["ratio only"][label].alpha == parts["default"][label].alpha == (0, 0, 0, 1, 0)
        assert parts["ratio only"][label].rho == parts["calibrated"][label].rho


def test_parts_begin_from_the_default_of_an_evaluation(subject):
    entry = subject.artifact.entry(subject.budget)
    choices = {
        label: choice.model_copy(update={"relevance": "mean-attention", "downsample": 0.5})
        for label, choice in entry.choices.items()
    }
    budgets = (entry.model_copy(update={"choices": choices}),)
    artifact = subject.artifact.with_manifest(subject.artifact.manifest.model_copy(update={"budgets": budgets}))
    parts = {setting.name: setting.candidates for setting in VARIANTS["parts"](replace(subject, artifact=artifact))}
    for label in artifact.classes:
        assert parts["default"][label] == Candidate("own", (0, 0, 0, 1, 0), 1.0)
        for name in ("fusion only", "ratio only"):
            assert (parts[name][label].relevance, parts[name][label].downsample) == (None, None)
        assert parts["calibrated"][label].downsample == 0.5
    assert "mean-attention" in {one.relevance for one in parts["calibrated"].values()}


class Told:
    """An evaluator whose score of a candidate on a sample is a function of both."""

    def __init__(self, score):
        self._score = score

    def scores(self, sample, candidates, pruning):
        return Scores(tuple(self._score(sample, candidate) for candidate in candidates))


def test_a_router_that_errs_scores_the_mean_of_the_other_classes(subject):
    classes = subject.artifact.classes
    candidates = subject.candidates()
    right = 0.75

    def score(sample, candidate):
        return right if candidate == candidates[sample.label] else 0.25

    scorer = Scorer(InProcess(Told(score)))
    compared, base = measure_ablation("routing", scorer, subject, SAMPLES, seed=0)
    assert base == "calibrated"
    table = compared.table()
    assert table["calibrated"]["macro"].mean == right
    others = [[c for c in classes if c != label] for label in ("object", "text")]
    wrong = np.mean(
        [
            np.mean([right if candidates[c] == candidates[label] else 0.25 for c in rest])
            for label, rest in zip(("object", "text"), others, strict=True)
        ]
    )
    for share in MISROUTED:
        expected = (1 - share) * right + share * wrong
        assert table[f"{share:.0%} at random wrong"]["macro"].mean == pytest.approx(expected)
    assert "always default" in table


def test_where_rho_means_nothing_it_is_not_ablated(subject):
    manifest = subject.artifact.manifest.model_copy(
        update={"profile": "input", "relevance": "none", "starts": (0,), "positions": "compact"}
    )
    covering = replace(subject, artifact=subject.artifact.with_manifest(manifest))
    with pytest.raises(InputError, match=r"calibrated without a relevance .*choose another ablation"):
        VARIANTS["rho"](covering)


def test_an_unknown_ablation_is_refused(subject):
    with pytest.raises(InputError, match=", ".join(ABLATIONS)):
        measure_ablation("luck", Scorer(InProcess(Told(lambda *_: 1.0))), subject, SAMPLES, seed=0)


OTHERS = {"9": {"object": None, "text": "fastv"}, "6": {"object": "fastv", "text": "fastv"}}
CHOSEN = SimpleNamespace(classes=("object", "text"), selector=lambda budget, label: OTHERS[budget][label])


def test_budgets_without_the_option_are_left_out_where_none_was_named(capsys):
    found = changed_at("iterations", CHOSEN, ["9", "6"], SAMPLES, asked=False)
    assert {budget: [*of] for budget, of in found.items()} == {"9": ["object"]}
    assert "budget 6 is left out: no class with samples has clasp's own" in capsys.readouterr().err
    everything = changed_at("parts", CHOSEN, ["9", "6"], SAMPLES, asked=True)
    assert {budget: [*of] for budget, of in everything.items()} == {"9": ["object", "text"], "6": ["object", "text"]}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("budgets", "labels", "asked", "message"),
    [
        (
            ["9", "6"],
            ["object", "text"],
            True,
            "at budget 6 all classes have other selectors; choose another budget, or",
        ),
        (
            ["6"],
            ["object", "text"],
            False,
            "at budget 6 all classes have other selectors; choose another budget, or from",
        ),
        (
            ["9"],
            ["text"],
            False,
            "at budget 9 all classes but object, which have no samples, have other selectors; .*, take samples of",
        ),
    ],
)
def test_budgets_that_were_named_and_have_no_class_with_the_option_are_refused(budgets, labels, asked, message):
    samples = {label: SAMPLES[label] for label in labels}
    with pytest.raises(InputError, match=message):
        changed_at("iterations", CHOSEN, budgets, samples, asked=asked)
