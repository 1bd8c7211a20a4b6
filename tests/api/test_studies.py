"""`evaluate`, `compare`, `ablate`, `recheck` and `generate`: what they return, and what they write where."""

import multiprocessing
import shutil
import time
import warnings
from copy import deepcopy
from dataclasses import replace
from functools import partial
from threading import Thread

import pytest
import torch
from PIL import Image
from speaking_models import load_speaking

import clasp_calib as cc
from clasp_calib.api import ablating, evaluating
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.checkpoint_digest import files_digest
from clasp_calib.artifacts.files import write_artifact
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.common.errors import ClaspWarning
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.runtime.decoding import Greedy


@pytest.fixture(scope="module")
def report(bench, artifact) -> cc.EvaluationReport:
    return cc.evaluate(*call(bench, artifact), options=cc.EvaluationOptions(timed=0))


def call(bench, artifact):
    return bench.model, bench.processor, artifact, bench.samples


def test_an_evaluation_is_a_table_a_number_and_a_page(report):
    rows = report.table(6)
    assert {row["setting"] for row in rows} >= {"unpruned", "default", "random", "calibrated"}
    assert {row["budget"] for row in report.table()} == {"6", "50%"}
    macro = report.macro("50%")
    (row,) = (r for r in report.table("50%") if (r["setting"], r["class"]) == ("calibrated", "macro"))
    assert (row["mean"], row["low"], row["high"], row["samples"]) == (macro.mean, macro.low, macro.high, macro.samples)
    assert "| class | n | unpruned |" in report.to_markdown()
    html = report._repr_html_()
    assert html.count("<table>") == 2
    assert "<th>calibrated</th>" in html
    with pytest.raises(cc.errors.ArtifactError, match="budget '7' was not evaluated"):
        report.macro(7)
    with pytest.raises(cc.errors.InputError, match="no setting 'typo' here; choose from unpruned, default"):
        report.macro(6, "typo")


def test_scores_of_an_artifact_in_memory_are_in_the_report_s(bench, artifact, report):
    assert artifact.entry("6").results == {}
    assert report.recorded
    assert report.artifact.entry("6").results["calibrated"]["macro"].mean == report.macro(6).mean
    some = cc.evaluate(*call(bench, artifact), budgets=[6], options=cc.EvaluationOptions(per_class=1, timed=0))
    assert not some.recorded
    assert some.artifact is artifact


def test_samples_that_may_have_been_tuned_on_are_told_of(bench, artifact, capsys):
    few = cc.EvaluationOptions(per_class=1, timed=0)
    cc.evaluate(*call(bench, artifact), budgets=[6], options=few)
    assert "not the table" not in capsys.readouterr().err
    turned = {"calibration": "test", "test": "calibration", "selection": "selection"}
    others = [replace(sample, split=turned[sample.split]) for sample in bench.samples]
    cc.evaluate(bench.model, bench.processor, artifact, others, budgets=[6], options=few)
    assert "is not the table that the artifact was calibrated on" in capsys.readouterr().err


def test_a_generation_config_other_than_the_calibration_s_is_told_of(bench, artifact, capsys, monkeypatch):
    assert artifact.manifest.decoding.generation == Greedy(bench.model).settings
    few = cc.EvaluationOptions(per_class=1, timed=0)
    cc.evaluate(*call(bench, artifact), budgets=[6], options=few)
    assert "not that of the calibration" not in capsys.readouterr().err
    monkeypatch.setattr(bench.model, "generation_config", deepcopy(bench.model.generation_config))
    bench.model.generation_config.repetition_penalty = 1.5
    cc.evaluate(*call(bench, artifact), budgets=[6], options=few)
    assert "not that of the calibration (repetition_penalty was not set, is 1.5)" in capsys.readouterr().err


def test_results_say_in_a_line_what_they_are(bench, artifact, report):
    assert repr(artifact).endswith("calibrated for 6, 50%>")
    answer = cc.generate(bench.model, bench.processor, bench.samples[0].image, "How many?", artifact=artifact)
    assert max(len(repr(one)) for one in (artifact, report, answer)) < 250


def test_scores_of_a_directory_are_written_there(bench, artifact, report, tmp_path):
    write_artifact(artifact, tmp_path / "artifact")
    given = (bench.model, bench.processor, tmp_path / "artifact", bench.samples)
    first = cc.evaluate(*given, run=tmp_path / "run", options=cc.EvaluationOptions(timed=0))
    assert (first.recorded, first.as_recorded) == (True, None)
    kept = RunDirectory(tmp_path / "run").configuration()["evaluate"]
    assert (kept["artifact"], kept["samples"]) == (str(tmp_path / "artifact"), cc.load_samples(bench.samples).digest)
    assert [path.name for path in first.files] == ["evaluation-test.md", "evaluation-test.png"]
    assert all(path.parent == tmp_path / "run" / "report" for path in first.files)
    assert read_artifact(tmp_path / "artifact").entry("6").results == report.artifact.entry("6").results
    assert cc.evaluate(*given, options=cc.EvaluationOptions(timed=0)).as_recorded is True
    some = cc.evaluate(*given, options=cc.EvaluationOptions(per_class=1, timed=0))
    assert (some.recorded, some.as_recorded) == (False, None)


def kill_one_worker():
    """As soon as there is one."""
    limit = time.monotonic() + 60
    while not (living := multiprocessing.active_children()) and time.monotonic() < limit:
        time.sleep(0.01)
    living[0].kill()


@pytest.mark.slow
def test_two_processes_score_the_same_even_if_one_is_killed(bench, artifact, report, tmp_path):
    killer = Thread(target=kill_one_worker)
    killer.start()
    options = cc.EvaluationOptions(timed=0)
    crew = cc.Crew(workers=2)
    found = cc.evaluate(*call(bench, artifact), run=tmp_path, options=options, crew=crew)
    killer.join()
    assert found.evaluation == report.evaluation
    assert not list((tmp_path / "evaluation").iterdir())


def test_a_model_in_memory_is_answered_by_this_process_alone(bench, artifact):
    model, processor = load_speaking(bench.directory)
    model.config._name_or_path = ""
    given = (model, processor, artifact, bench.samples)
    for study in (cc.evaluate, cc.compare, partial(cc.ablate, "parts")):
        with pytest.raises(cc.errors.InputError, match="save_pretrained"):
            study(*given, crew=cc.Crew(workers=2))


def test_pictures_are_looked_at_before_anything_is_answered(bench, artifact, tmp_path):
    Image.new("RGB", (1, 900)).save(tmp_path / "narrow.png")
    odd = replace(next(s for s in bench.samples if s.split == "test"), id="odd", image=tmp_path / "narrow.png")
    with pytest.raises(cc.errors.InputError, match=r"narrow\.png: it has 1 x 900 pixels"):
        cc.compare(bench.model, bench.processor, artifact, [*bench.samples, odd], "fastv", run=tmp_path / "run")
    assert not list((tmp_path / "run" / "comparison").glob("answers-*"))


def test_scores_of_other_weights_are_reported_and_not_recorded(bench, artifact, tmp_path):
    write_artifact(artifact, tmp_path / "artifact")
    before = (tmp_path / "artifact" / "artifact.json").read_bytes()
    model, _ = load_speaking(bench.directory)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.001)
    model.save_pretrained(tmp_path / "tuned")
    bench.processor.save_pretrained(tmp_path / "tuned")
    tuned, _ = load_speaking(tmp_path / "tuned")
    given = (tuned, bench.processor, tmp_path / "artifact", bench.samples)
    with pytest.raises(cc.errors.ArtifactError, match="calibrated with the checkpoint"):
        cc.evaluate(*given, options=cc.EvaluationOptions(timed=0, strict=True))
    with pytest.warns(ClaspWarning, match="calibrated with the checkpoint") as told:
        seen = cc.evaluate(*given, options=cc.EvaluationOptions(timed=0))
    assert (seen.recorded, seen.as_recorded, seen.artifact.entry("6").results) == (False, None, {})
    name = str(told[0].message).rpartition(" ")[2].removesuffix(")")
    how = {"strict": True, "checkpoint": name}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClaspWarning)
        accepted = cc.evaluate(*given, options=cc.EvaluationOptions(timed=0, **how))
        answer = cc.generate(*given[:2], bench.samples[0].image, "How many?", artifact=artifact, options=answering(how))
    assert not accepted.recorded
    assert answer.text is not None
    assert (tmp_path / "artifact" / "artifact.json").read_bytes() == before


def answering(how):
    return cc.GenerationOptions(max_new_tokens=2, **how)


def test_scores_say_which_weights_they_are_of(bench, artifact, report):
    measured = report.artifact.entry("6").measured
    assert measured.checkpoint == artifact.manifest.checkpoint == files_digest(bench.directory)


def test_scores_can_be_measured_again(bench, artifact, report, tmp_path):
    with pytest.raises(cc.errors.ArtifactError, match="records no scores"):
        cc.recheck(*call(bench, artifact), 3)
    again = cc.recheck(*call(bench, report.artifact), 3, run=tmp_path)
    assert len(again) == 3
    with FeatureStore.open(tmp_path / "cache") as store:
        assert 1 <= len(store.pictures()) <= 3
    assert all(one.same for one in again)


def test_peers_are_compared_and_an_interrupted_comparison_goes_on(bench, artifact, tmp_path):
    options = cc.ComparisonOptions(per_class=1, timed=0, mixture=False)
    words = {"budgets": [6], "run": tmp_path, "options": options}
    found = cc.compare(*call(bench, artifact), ["fastv"], **words)
    methods = {row["method"] for row in found.table(6)}
    assert methods == {"unpruned", "calibrated", "selection alone", "default", "fastv"}
    assert 0 <= found.macro(6, "fastv").mean <= 1
    for wrong, told in (((6, "typo"), "no method 'typo' here; choose from"), (("50%",), "no budget '50%' here")):
        with pytest.raises(cc.errors.InputError, match=told):
            found.macro(*wrong)
    assert "<td" in found._repr_html_()
    assert [path.name for path in found.files] == [f"comparison-test.{kind}" for kind in ("md", "json", "png")]
    again = cc.compare(*call(bench, artifact), ["fastv"], **words)
    assert (found.resumed, again.resumed) == (0, 15)
    assert again.as_dict() == found.as_dict()


def test_answers_of_another_processor_model_or_picture_are_not_taken_up(bench, artifact, tmp_path):
    model, processor = load_speaking(bench.directory)
    samples = [replace(s, image=shutil.copy(s.image, tmp_path / f"{s.id}.png")) for s in bench.samples]
    options = cc.ComparisonOptions(per_class=1, timed=0, solve_on=1)
    words = {"budgets": [6], "run": tmp_path / "run", "options": options}

    def compared():
        return cc.compare(model, processor, artifact, samples, "random", **words)

    assert compared().resumed == 0
    every = compared().resumed
    processor.image_processor.image_mean = [0.4, 0.4, 0.4]
    assert compared().resumed == 0
    model.config.get_text_config().rms_norm_eps = 0.5
    report = compared()
    assert report.resumed == 0
    first = report.contest.samples[0].image
    about = sum(sample.image == first for sample in report.contest.samples) / len(report.contest.samples)
    with Image.open(first) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first)
    assert compared().resumed == every * (1 - about)
    samples.append(replace(samples[0], id="new"))
    assert compared().resumed >= every * (1 - about)


def test_knobs_that_were_solved_on_other_samples_are_not_taken_up(bench, artifact, options, tmp_path):
    """The first samples of each class are others where classes are."""
    of_one = cc.calibrate(*call(bench, None)[:2], bench.samples, [6], options=replace(options, one_class=True))
    few = cc.ComparisonOptions(per_class=1, timed=0, solve_on=1)
    words = {"budgets": [6], "run": tmp_path, "options": few}
    for found in (artifact, artifact, of_one):
        cc.compare(*call(bench, found), "prumerge", **words)
    knobs = sorted((tmp_path / "comparison").glob("knobs-*"))
    assert len(knobs) == 2
    assert all(len(path.read_text().splitlines()) == 1 for path in knobs)


@pytest.mark.parametrize("study", ["evaluate", "ablate"])
def test_a_study_that_is_killed_while_it_writes_scores_nothing_again(study, bench, artifact, tmp_path, monkeypatch):
    def called():
        words = {"budgets": [6], "run": tmp_path}
        if study == "ablate":
            return cc.ablate("parts", *call(bench, artifact), options=cc.StudyOptions(per_class=1), **words)
        return cc.evaluate(*call(bench, artifact), options=cc.EvaluationOptions(per_class=1, timed=0), **words)

    def killed(*_):
        raise KeyboardInterrupt

    module = {"evaluate": evaluating, "ablate": ablating}[study]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_filed", killed)
        with pytest.raises(KeyboardInterrupt):
            called()
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "scores", killed)
        other = cc.StudyOptions(per_class=1)
        with pytest.raises(KeyboardInterrupt):
            cc.ablate("rho", *call(bench, artifact), budgets=[6], run=tmp_path, options=other)
        report = called()
    assert all(path.is_file() for path in report.files)
    assert len(list((tmp_path / "evaluation").iterdir())) == 1, "what the other study began with"
    recorded = RunDirectory(tmp_path).configuration()[study]
    assert (recorded["split"], recorded["budgets"]) == ("test", ["6"])


def test_a_comparison_without_a_run_writes_nothing(bench, artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = cc.ComparisonOptions(per_class=1, timed=0)
    assert cc.compare(*call(bench, artifact), "fastv", budgets=[6], options=options).files == ()
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_ablated(bench, artifact):
    found = cc.ablate("parts", *call(bench, artifact), budgets=[6])
    assert list(found.as_dict()["budgets"]["6"]) == ["default", "fusion only", "ratio only", "calibrated"]
    assert "### parts at budget 6" in found.to_markdown()
    with pytest.raises(cc.errors.InputError, match="no ablation 'luck'"):
        cc.ablate("luck", *call(bench, artifact))


def test_a_picture_in_memory_is_asked_about(bench, artifact, tmp_path):
    with Image.open(bench.samples[0].image) as picture:
        picture.load()
    options = cc.GenerationOptions(class_="counting", max_new_tokens=4, compare=True)
    ask = (bench.model, bench.processor)
    words = {"artifact": artifact, "budget": 6, "options": options}
    found = cc.generate(*ask, picture, "How many?", **words)
    of_file = cc.generate(*ask, bench.samples[0].image, "How many?", **words)
    assert found.text == of_file.text
    assert (found.class_, found.budget) == ("counting", "6")
    assert found.unpruned is not None
    found.draw(tmp_path / "kept.png")
    assert (tmp_path / "kept.png").is_file()
    with pytest.raises(cc.errors.InputError, match="neither an artifact nor a budget"):
        cc.generate(bench.model, bench.processor, picture, "How many?")


@pytest.mark.parametrize(
    "made",
    [
        lambda: cc.StudyOptions(per_class=0),
        lambda: cc.EvaluationOptions(per_class=-1),
        lambda: cc.EvaluationOptions(timed=-1),
        lambda: cc.ComparisonOptions(solve_on=0),
        lambda: cc.GenerationOptions(max_new_tokens=0),
        lambda: cc.recheck(None, None, None, None, 0),
    ],
)
def test_numbers_that_are_too_small_are_refused(made):
    with pytest.raises(cc.errors.InputError, match=r"is (0|-1); expected at least"):
        made()


def test_what_is_no_picture_is_refused(bench):
    with pytest.raises(cc.errors.InputError, match="the image is 3; expected the path"):
        cc.generate(bench.model, bench.processor, 3, "How many?", budget=6)
