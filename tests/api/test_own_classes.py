"""Classes of one's own, and one class: from samples to an artifact, and all that is done with it."""

from dataclasses import replace

import pytest

import clasp_calib as cc
from clasp_calib.api.routers import train_router
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.runtime.routing import classes_of

NAMES = {"attribute": '"[red]" a|b', "counting": "数える", "spatial": "Where?"}
"""Nothing of these may be taken for markup, a cell's end or the end of a text."""
BUDGET = 6


@pytest.fixture(scope="module")
def rows(bench):
    told = ("id", "question", "image", "split")
    return [
        {**{name: getattr(s, name) for name in told}, "answers": list(s.answers), "task": NAMES[s.label]}
        for s in bench.samples
    ]


@pytest.fixture(scope="module")
def by_column(bench, options, rows):
    searched = replace(options, class_from="task", strategy=cc.Grid())
    return cc.calibrate(bench.model, bench.processor, rows, BUDGET, options=searched)


@pytest.fixture(scope="module")
def everything(bench, options, rows):
    return cc.calibrate(bench.model, bench.processor, rows, BUDGET, options=replace(options, one_class=True))


def test_the_column_s_values_are_the_artifact_s_classes(by_column, tmp_path):
    of = by_column.manifest
    assert (of.classes, of.class_from, of.default_class) == (tuple(sorted(NAMES.values())), "task", None)
    assert of.taxonomy == {}
    assert {choice.evaluations for choice in by_column.entry(BUDGET).choices.values()} == {4 * 7}
    saved = by_column.save(tmp_path / "a")
    assert read_artifact(tmp_path / "a").manifest == saved.manifest
    card = (tmp_path / "a" / "README.md").read_text()
    assert '| "[red]" a\\|b | ' in card
    assert 'classes="\\"[red]\\" a|b"' in card
    assert by_column.push_to_hub("org/name", dry_run=True).files


def test_every_study_takes_the_artifact_s_classes(bench, by_column, rows):
    at = (bench.model, bench.processor, by_column, rows)
    few = {"per_class": 1, "timed": 0}
    report = cc.evaluate(*at, options=cc.EvaluationOptions(timed=0))
    assert report.recorded
    labels = {row["class"] for row in report.table()}
    assert labels == {*NAMES.values(), "macro"}
    assert report.to_markdown().count("a\\|b") == 1
    assert "[red]&quot; a|b" in report._repr_html_()
    assert set(report.artifact.entry(BUDGET).results["calibrated"]) == labels
    assert len(cc.recheck(*at[:2], report.artifact, rows, 3)) == 3
    contest = cc.compare(*at, ["random"], options=cc.ComparisonOptions(**few))
    assert contest.macro(BUDGET).samples
    routing = cc.ablate("routing", *at, options=cc.StudyOptions(per_class=1))
    assert "at random wrong" in routing.to_markdown()
    assert "always" not in routing.to_markdown()


def test_values_that_the_artifact_does_not_know_are_refused(bench, by_column, rows):
    few = cc.EvaluationOptions(per_class=1, timed=0)
    with pytest.raises(cc.errors.InputError, match="has class 'new'; expected one of"):
        cc.evaluate(bench.model, bench.processor, by_column, [*rows[:-1], rows[-1] | {"task": "new"}], options=few)
    bare = [{name: value for name, value in row.items() if name != "task"} for row in rows]
    with pytest.raises(cc.errors.InputError, match="no column 'task' to take classes from"):
        cc.evaluate(bench.model, bench.processor, by_column, bare, options=few)


def test_a_class_is_named_or_routed_and_never_guessed(bench, by_column, rows):
    pytest.importorskip("sklearn")
    ask = (bench.model, bench.processor, rows[0]["image"], "How many cups are there?")
    with pytest.raises(cc.errors.InputError, match=r"classes of its own .*train-router TABLE --class-from task"):
        cc.generate(*ask, artifact=by_column)
    named = cc.GenerationOptions(class_="数える", max_new_tokens=2)
    assert cc.generate(*ask, artifact=by_column, options=named).class_ == "数える"
    trained = train_router(rows, class_from="task").router
    assert (trained.default, trained.threshold) == (None, 0.0)
    routed = by_column.with_router(trained)
    assert cc.generate(*ask, artifact=routed, options=cc.GenerationOptions(max_new_tokens=2)).class_ == "数える"
    other = train_router(rows, class_from="task", default_class="数える").router
    with pytest.raises(cc.errors.ArtifactError, match="router: its labels follow the taxonomy"):
        by_column.with_router(other)


def test_one_class_is_one_setting_for_everything(bench, everything, rows, tmp_path):
    of = everything.manifest
    assert (of.classes, of.class_from, of.default_class) == (("all",), None, "all")
    assert read_artifact(everything.save(tmp_path / "a") and tmp_path / "a").manifest.class_from is None
    bare = [{name: value for name, value in row.items() if name != "task"} for row in rows]
    labelled = [row | {"class": "whatever"} for row in bare]
    few = cc.EvaluationOptions(per_class=2, timed=0)
    at = (bench.model, bench.processor, everything)
    scores = [cc.evaluate(*at, one, options=few).table() for one in (bare, labelled)]
    assert scores[0] == scores[1]
    assert {row["class"] for row in scores[0]} == {"all", "macro"}
    assert everything.entry(BUDGET).alternatives == {}
    ask = (bench.model, bench.processor, rows[0]["image"], "How many cups are there?")
    answered = cc.generate(*ask, artifact=everything, options=cc.GenerationOptions(max_new_tokens=2))
    assert answered.class_ == "all"
    assert classes_of(["What?", "Where?"], everything) == ["all", "all"]
    with pytest.raises(cc.errors.InputError, match="the artifact has one class, so no router can err"):
        cc.ablate("routing", bench.model, bench.processor, everything, rows, options=cc.StudyOptions(per_class=1))


def test_a_taxonomy_of_ones_own_names_classes_and_default(bench, options, rows, by_column, tmp_path):
    intents = "".join(
        f"  to {label}:\n    class: {name!r}\n    definition: x\n    examples: [{label} 1, {label} 2, {label} 3]\n"
        for label, name in NAMES.items()
    )
    (tmp_path / "own.yaml").write_text(
        f"version: 1\nclasses: {list(NAMES.values())}\ndefault_intent: to spatial\nintents:\n{intents}"
    )
    labelled = [row | {"class": row["task"]} for row in rows]
    searched = replace(options, taxonomy=tmp_path / "own.yaml", strategy=cc.Grid())
    found = cc.calibrate(bench.model, bench.processor, labelled, BUDGET, options=searched)
    assert (found.classes, found.manifest.default_class) == (tuple(NAMES.values()), NAMES["spatial"])
    assert found.manifest.taxonomy == {f"to {label}": name for label, name in NAMES.items()}
    for name in found.classes:
        assert found.alpha(BUDGET, name) == by_column.alpha(BUDGET, name)
        assert found.rho(BUDGET, name) == by_column.rho(BUDGET, name)
    report = cc.evaluate(
        bench.model, bench.processor, found, labelled, options=cc.EvaluationOptions(per_class=1, timed=0)
    )
    assert {row["class"] for row in report.table()} == {*NAMES.values(), "macro"}
    routing = cc.ablate("routing", bench.model, bench.processor, found, labelled, options=cc.StudyOptions(per_class=1))
    assert f"always {NAMES['spatial']}" in routing.to_markdown()
