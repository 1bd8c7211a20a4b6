"""Models whose pictures differ in their number of visual tokens, in Python: in memory as in a run directory."""

import pytest
from speaking_architectures import speaking_directory, speaking_processor, write_questions
from transformers import AutoModelForImageTextToText

import clasp_calib as cc
from clasp_calib.search.watchers import Watcher

NAME = "qwen2_5_vl"
PARTS = {"calibration": 3, "selection": 2, "test": 2}


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """Model, processor, samples and options."""
    root = tmp_path_factory.mktemp(NAME)
    model = AutoModelForImageTextToText.from_pretrained(speaking_directory(root / "model", NAME)).eval()
    options = cc.CalibrationOptions(pruning=cc.PruningOptions(starts=(1, 2, 4)))
    return model, speaking_processor(NAME), cc.load_samples(write_questions(root, NAME, PARTS)), options


def test_without_a_run_directory_the_same_is_found(ragged, tmp_path):
    model, processor, samples, options = ragged
    found = [cc.calibrate(model, processor, samples, "40%", run=run, options=options) for run in (None, tmp_path)]
    assert found[0].manifest.budgets == found[1].manifest.budgets
    assert (found[0].alphas == found[1].alphas).all()
    assert (found[0].rhos == found[1].rhos).all()
    reports = [cc.evaluate(model, processor, found[1], samples, run=run) for run in (None, tmp_path)]
    assert reports[0].table() == reports[1].table()
    assert vars(reports[0].at("40%").a_layer) == vars(reports[1].at("40%").a_layer)
    assert "visual tokens" in reports[0].to_markdown()


def test_the_largest_budget_is_the_largest_share_whatever_samples_it_was_searched_on(ragged):
    model, processor, samples, options = ragged
    artifact = cc.calibrate(model, processor, samples, ["40%", "60%"], options=options)
    less, more = artifact.manifest.budgets
    more = more.model_copy(update={"mean_tokens": 1.0, "token_range": (1.0, 1.0)})
    artifact = artifact.with_manifest(artifact.manifest.model_copy(update={"budgets": (less, more)}))
    asked = samples[0]
    assert cc.generate(model, processor, asked.image, asked.question, artifact=artifact).budget == "60%"


def test_a_search_goes_on_where_it_stopped(ragged, tmp_path, monkeypatch):
    model, processor, samples, options = ragged
    whole = cc.calibrate(model, processor, samples, "40%", run=tmp_path / "whole", options=options)

    class Stopping(Watcher):
        def advance(self, of, evaluations, measured=False):
            if measured:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cc.calibrate(model, processor, samples, "40%", run=tmp_path / "run", options=options, watcher=Stopping())
    again = cc.calibrate(model, processor, samples, "40%", run=tmp_path / "run", options=options)
    assert again.manifest.id == whole.manifest.id


def test_a_plan_tells_tokens_as_mean_and_range(ragged):
    model, processor, samples, options = ragged
    (plan,) = cc.plan_calibration(model, processor, samples, "40%", options=options).budgets
    assert plan["visual tokens"] == "12.8 (10 to 16)"
    assert plan["mean tokens"].endswith(" (4 to 6)")
    with pytest.raises(cc.errors.BudgetError, match=r"for 5 tokens in the mean --budget \d\d% is 4\.\d"):
        cc.plan_calibration(model, processor, samples, 5, options=options)
