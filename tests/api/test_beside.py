"""Calibrations beside each other, on the same questions."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import clasp_calib as cc
from clasp_calib.calib.studies.beside_entrants import entrants_beside
from clasp_calib.common.errors import ArtifactError, ClaspWarning, InputError
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.report.contest_tables import contest_rows, equal_flops_rows

FEW = cc.ComparisonOptions(per_class=1, timed=1)
AT_INPUT = "input profile, $^$"
"""No formula, even in a plot."""


@pytest.fixture(scope="module")
def at_input(bench, options):
    """In the input profile, for one budget."""
    own = replace(options, pruning=cc.PruningOptions(profile="input"))
    return cc.calibrate(bench.model, bench.processor, bench.samples, [6], options=own)


def compared(bench, artifact, beside, **words):
    given = {"budgets": [6], "options": replace(FEW, timed=0, mixture=False), **words}
    return cc.compare(bench.model, bench.processor, artifact, bench.samples, [], beside=beside, **given)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def report(bench, artifact, at_input, run):
    """An artifact beside itself, and beside one that lacks a budget."""
    others = {"again": artifact, AT_INPUT: at_input}
    return compared(bench, artifact, others, budgets=None, options=FEW, run=run)


def entrant(report, name, budget):
    (found,) = (e for e in report.contest.at(budget) if e.method == name)
    return found


@pytest.mark.parametrize("budget", ["6", "50%"])
def test_an_artifact_is_as_good_and_as_dear_as_itself(report, budget):
    contest = report.contest
    own, again = (entrant(report, name, budget) for name in ("calibrated", "again"))
    assert np.array_equal(contest.scores(own), contest.scores(again))
    for sample in contest.samples:
        assert contest.answers[own.asked(sample, 0)] == contest.answers[again.asked(sample, 0)]
    assert (contest.tokens(own), contest.flops(own)) == (contest.tokens(again), contest.flops(again))
    for header, body in (contest_rows(contest, budget, report.costs), equal_flops_rows(contest, budget)):
        (row,) = (dict(zip(header, line, strict=True)) for line in body if line[0] == "again")
        assert row["p"] == "1.000"
        assert row["minus calibrated"].startswith(("0.0", "+0.0"))
    (told,) = (of for of in report.as_dict()["budgets"] if of["budget"] == budget)
    (told,) = (one for one in told["methods"] if one["method"] == "again")
    assert {of["mean"] for of in told["difference"].values()} == {0}
    assert told["prefill"]["seconds"] > 0


def test_an_artifact_takes_part_with_its_own_settings(bench, at_input, report):
    found = entrant(report, AT_INPUT, "6")
    assert found.knobs["profile"] == "input"
    assert found.knobs["starts"] == (0,)
    assert report.contest.tokens(found).mean == 6
    decoding = at_input.manifest.decoding
    for sample in report.contest.samples:
        how = cc.GenerationOptions(class_=sample.label, max_new_tokens=decoding.max_new_tokens)
        words = {"artifact": at_input, "budget": 6, "options": how}
        served = cc.generate(bench.model, bench.processor, sample.image, sample.question, **words)
        assert report.contest.answers[found.asked(sample, 0)].text == served.text
    page = report.to_markdown()
    assert f"| {AT_INPUT} | mean over layers | profile input, starts 0, counts 6" in page
    assert "| calibrated | mean over layers | profile layered, starts 2/6/15" in page
    mixtures = {e.method for e in report.contest.entrants if e.mixed}
    assert mixtures == {"unpruned+mixture", "default+mixture"}


def test_a_budget_that_an_artifact_lacks_is_told_and_the_others_are_compared(report):
    (refusal,) = report.refusals
    assert (refusal.method, refusal.budget) == (AT_INPUT, "50%")
    assert "was calibrated for 6; compare at one of these, or calibrate it with" in refusal.reason
    (told,) = (of for of in report.as_dict()["budgets"] if of["budget"] == "50%")
    assert told["refused"] == {AT_INPUT: refusal.reason}
    assert AT_INPUT not in {one["method"] for one in told["methods"]}


def test_a_comparison_goes_on_and_a_name_does_not_stand_for_its_artifact(bench, artifact, report, run):
    words = {"budgets": None, "run": run, "options": replace(FEW, timed=0)}
    every = len(report.contest.answers)
    again = compared(bench, artifact, {"again": artifact}, **words)
    assert again.resumed == every
    assert again.macro(6, "again") == report.macro(6, "again")
    other = replace(artifact, rhos=np.float32(1) - artifact.rhos)
    compared(bench, artifact, {"again": other}, **words)
    assert compared(bench, artifact, {"again": artifact}, **words).resumed == every + 2 * len(report.contest.samples)
    assert RunDirectory(run).configuration()["compare"]["beside"] == {"again": artifact.manifest.id}


@pytest.mark.parametrize(
    "change",
    [
        {"seeding": "farthest"},
        {"raters": "all"},
        {"features": "hidden"},
        {"positions": "compact"},
        {"iterations": 3},
        {"starts": (3, 6, 15)},
        {"counts": (12, 5, 1)},
        {"alphas": -1},
        {"rhos": -1},
    ],
    ids=str,
)
def test_answers_are_kept_under_all_settings(bench, artifact, change):
    """A change of any makes another key."""
    changed = artifact.only(["6"])
    (entry,) = changed.manifest.budgets
    if "seeding" in change:
        choices = {label: of.model_copy(update=change) for label, of in entry.choices.items()}
        change = {"budgets": (entry.model_copy(update={"choices": choices}),)}
    if "counts" in change:
        change = {"budgets": (entry.model_copy(update=change),)}
    if "alphas" in change:
        changed = replace(changed, alphas=changed.alphas[..., ::-1].copy())
    elif "rhos" in change:
        changed = replace(changed, rhos=np.float32(1) - changed.rhos)
    else:
        changed = changed.with_manifest(changed.manifest.model_copy(update=change))
    found, _ = entrants_beside(bench.model, {"same": artifact, "other": changed}, ["6"])
    one, other = (replace(e, method="x").asked(bench.samples[0], 0) for e in found)
    assert one != other


def test_other_processes_can_be_told_of_them(bench, artifact, at_input):
    found, _ = entrants_beside(bench.model, {"again": artifact, "input": at_input}, ["6", "50%"])
    copies = pickle.loads(pickle.dumps(found))
    assert copies == found
    assert [e.apply for e in copies] == [e.apply for e in found]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((name, "as a method or a setting") for name in ("fastv", "FastV", "calibrated", "selection alone")),
        *((name, "as a method or a setting") for name in ("random", "cdpruner-embeddings", "last month+mixture")),
        ("_mine", "does not begin with"),
        ("", "at least 1 character|match pattern"),
        (" mine", "begins or ends with a space"),
        (3, "valid string"),
    ],
)
def test_names_that_mean_something_else_are_refused(bench, artifact, name, told):
    with pytest.raises(InputError, match=told):
        compared(bench, artifact, {name: artifact})


def changed_decoding(artifact, **changes):
    return {"decoding": artifact.manifest.decoding.model_copy(update=changes)}


def other_shape(artifact):
    shape = artifact.manifest.shape.model_copy(update={"text_layers": 99})
    return {"shape": shape, "fingerprint": shape.fingerprint}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (other_shape, "was calibrated for .* and this model differs .*text_layers"),
        (lambda a: {"classes": (*a.classes[:-1], "weather")}, "classes .only one of them has .*'weather'"),
        (lambda a: {"class_from": "task"}, "class_from .'task', not 'class'"),
        (lambda a: {"taxonomy": {**a.manifest.taxonomy, "other": "text"}}, "taxonomy .at 'other'"),
        (lambda a: {"prompt": "{question} Briefly."}, "prompt .'{question} Briefly.', not"),
        (lambda a: changed_decoding(a, max_new_tokens=77), r"max_new_tokens .77, not \d+"),
        (lambda a: changed_decoding(a, generation={"repetition_penalty": "1.5"}), "generation .{'repetition_penalty'"),
    ],
)
def test_artifacts_that_answer_other_questions_are_refused_by_name(bench, artifact, tmp_path, changes, told):
    other = artifact.with_manifest(artifact.manifest.model_copy(update=changes(artifact)))
    with pytest.raises(ArtifactError, match=f"the artifact 'mine' .*{told}"):
        compared(bench, artifact, {"mine": other}, run=tmp_path)
    assert not list((tmp_path / "comparison").glob("*"))


def test_artifacts_that_cannot_be_read_are_refused_by_name(bench, artifact, tmp_path):
    with pytest.raises(ArtifactError, match="the artifact 'mine': no artifact at"):
        compared(bench, artifact, {"mine": tmp_path})
    with pytest.raises(InputError, match=r"beside\['mine'\] is None; expected an artifact"):
        compared(bench, artifact, {"mine": None})
    with pytest.raises(InputError, match=r"beside is .* expected names with their artifacts"):
        compared(bench, artifact, [artifact])


def test_other_weights_and_tables_are_told_of_by_name(bench, artifact, capsys):
    provenance = {
        name: of.model_copy(update={"samples": "0" * 64}) for name, of in artifact.manifest.provenance.items()
    }
    weights = artifact.manifest.checkpoint.model_copy(update={"digest": "0" * 64})
    other = artifact.manifest.model_copy(update={"checkpoint": weights, "provenance": provenance})
    with pytest.warns(ClaspWarning, match="the artifact 'mine' was calibrated with the checkpoint"):
        compared(bench, artifact, {"mine": artifact.with_manifest(other)})
    assert "the artifact 'mine' was calibrated on another table" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="the artifact 'mine' was calibrated with the checkpoint"):
        compared(bench, artifact, {"mine": artifact.with_manifest(other)}, options=replace(FEW, strict=True))


@pytest.mark.slow
def test_two_processes_answer_the_same(bench, artifact, at_input, report, tmp_path):
    others = {"again": artifact, AT_INPUT: at_input}
    crew = cc.Crew(workers=2)
    found = compared(bench, artifact, others, budgets=None, options=replace(FEW, timed=0), run=tmp_path, crew=crew)
    assert found.contest == report.contest
