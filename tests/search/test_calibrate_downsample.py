"""A calibration that may show a class smaller pictures: what was planted is found, recorded and served as it scored."""

from dataclasses import replace

import pytest
from PIL import Image
from speaking_architectures import speaking_directory, speaking_processor, write_questions
from transformers import AutoModelForImageTextToText

import clasp_calib as cc
from clasp_calib.baselines.downsampling import DownSampling, PictureSizes
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.evaluation import shown_by
from clasp_calib.common.errors import ArtifactError, BudgetError, InputError
from clasp_calib.common.media import ResizedPicture
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import of_smaller, schedule_for
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.schedule import RelativeSchedule, ShareSchedule, parse_budget
from clasp_calib.search.allotment import allotted
from clasp_calib.search.space import Prototype, SearchSpace
from clasp_calib.search.strategies.grid import Grid

NAME, BUDGET, OPTIONS = "qwen2_5_vl", "40%", cc.PruningOptions(profile="input", relevance="mean-attention")


def space(layer):
    prototypes = (
        Prototype(name="own", weights={layer: 1.0}),
        Prototype(name="half", weights={layer: 1.0}, downsample=0.5),
        Prototype(name="fewest", weights={layer: 1.0}, downsample=0.4),
    )
    return SearchSpace(prototypes=prototypes, rhos=(0.5, 1.0))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Model, processor, and samples whose accepted answers are those of the class's planted setting."""
    root = tmp_path_factory.mktemp(NAME)
    model = AutoModelForImageTextToText.from_pretrained(speaking_directory(root / "model", NAME)).eval()
    processor, layers = speaking_processor(NAME), adapter_for(model).vision_layers
    alpha = tuple(float(layer == layers) for layer in range(layers + 1))
    planted = {
        "attribute": Candidate("half", alpha, 0.5, downsample=0.5),
        "counting": Candidate("own", alpha, 1.0),
    }
    table = cc.load_samples(write_questions(root, NAME, {"calibration": 9, "test": 6}))
    pictures = [sample for sample in table if sample.modality == "image" and len(sample.media) == 1]
    evaluator = Evaluator(model, Prompter(processor, model), open_source(None, model, processor).at((layers,)))
    pruning = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS)
    samples = []
    for sample in pictures:
        (said,) = evaluator.answers(sample, [planted[sample.label]], pruning)
        asked = replace(sample, answers=(said or "?",))
        if evaluator.scores(asked, [planted[sample.label]], pruning).score == (1.0,):
            samples.append(asked)
    return model, processor, samples, planted


@pytest.fixture(scope="module")
def found(bench, tmp_path_factory):
    model, processor, samples, _ = bench
    options = cc.CalibrationOptions(
        pruning=OPTIONS, space=space(adapter_for(model).vision_layers), strategy=Grid(), anyway=True
    )
    run = tmp_path_factory.mktemp("run")
    return cc.calibrate(model, processor, samples, BUDGET, run=run, options=options), run


def test_the_planted_size_is_found_and_recorded(bench, found):
    artifact, run = found
    assert artifact.manifest == cc.Artifact.load(run / "artifact").manifest
    for label, planted in bench[3].items():
        assert artifact.downsample(BUDGET, label) == planted.downsample
        assert artifact.entry(BUDGET).choices[label].calibration == 1.0
    told = artifact.manifest.model_dump(mode="json")["budgets"][0]["choices"]
    assert ("downsample" in told["attribute"], "downsample" in told["counting"]) == (True, False)


@pytest.mark.slow
def test_it_is_served_as_it_scored(bench, found):
    model, processor, samples, _ = bench
    artifact, run = found
    tested = [sample for sample in samples if sample.split == "test"]
    assert {sample.label for sample in tested} == {"attribute", "counting"}
    for sample in tested:
        options = cc.GenerationOptions(sample.label, max_new_tokens=16)
        said = cc.generate(model, processor, sample.image, sample.question, artifact=artifact, options=options)
        assert (said.text,) == sample.answers
    report = cc.evaluate(model, processor, artifact, samples, run=run, options=cc.EvaluationOptions(timed=1))
    assert report.at(BUDGET).scores["calibrated"]["macro"].mean == 1.0
    contest = cc.compare(
        model, processor, artifact, samples, ["downsampling"], options=cc.ComparisonOptions(timed=1, per_class=2)
    )
    assert contest.macro(BUDGET).mean == 1.0
    assert contest.contest.tokens(contest.contest.entrants[-1]).most <= 0.4 * 16


def test_classes_of_different_sizes_are_no_batch(bench, found):
    model = bench[0]
    with (
        pytest.raises(InputError, match="attribute, counting are shown pictures in different sizes"),
        cc.clasp(model, found[0], budget=BUDGET, classes=["attribute", "counting"]),
    ):
        pass


def test_clasp_has_to_be_told_that_pictures_are_smaller(bench, found):
    model, processor, samples, _ = bench
    with (
        pytest.raises(ArtifactError, match=r"class 'attribute' .* at most 0.5 .* give smaller=True"),
        cc.clasp(model, found[0], budget=BUDGET, classes="attribute"),
    ):
        pass
    for label in ("attribute", "counting"):
        (picture,) = cc.resized(model, processor, samples[0].picture, found[0], budget=BUDGET, class_=label)
        inputs = Prompter(processor, model).inputs(model, replace(samples[0], image=picture))
        with cc.clasp(model, found[0], budget=BUDGET, classes=label, smaller=True) as pruned:
            model.generate(**inputs, max_new_tokens=1)
        assert pruned.stats.mean_tokens[0] <= 0.4 * 10
    assert picture.size == load_picture(samples[0].picture).size


def test_only_the_sizes_of_a_sample_s_class_are_made(bench, found):
    model, processor, samples, _ = bench
    entry = found[0].entry(BUDGET).model_copy(update={"alternatives": {}})
    artifact = found[0].with_manifest(found[0].manifest.model_copy(update={"budgets": (entry,)}))
    tiny = {label: replace(samples[0], image=Image.new("RGB", (28, 28)), label=label) for label in artifact.classes}
    asked = [tiny["counting"], replace(samples[0], label="attribute")]
    shown = shown_by(model, processor, artifact, asked, [BUDGET])
    assert shown[:2] == asked
    assert [(one.label, type(one.picture)) for one in shown[2:]] == [("attribute", ResizedPicture)]
    for refused, routed in (("attribute", False), ("counting", True)):
        with pytest.raises(BudgetError, match="1 of 1 pictures"):
            shown_by(model, processor, artifact, [tiny[refused]], [BUDGET], routed=routed)


def test_sizes_side_by_side_score_as_each_alone(bench):
    """In any order, under every objective: the unpruned answer is that about the picture as it is."""
    model, processor, samples, _ = bench
    own = adapter_for(model).own_layer
    candidates = space(own).candidates(adapter_for(model).vision_layers, own, "mean-attention")
    features, prompter = open_source(None, model, processor).at((own,)), Prompter(processor, model)
    sizes = PictureSizes(model, processor)
    pruning, layered = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS), cc.PruningOptions(starts=(1, 2, 4))
    stages = Pruning(schedule_for(model, BUDGET, layered), layered)
    for objective, how in (("metric", pruning), ("nll", stages), ("kl", pruning)):
        evaluator = Evaluator(model, prompter, features, objective=objective)
        together = evaluator.scores(samples[0], candidates[::-1], how).score[::-1]
        for number, candidate in enumerate(candidates):
            seen = replace(
                samples[0],
                image=DownSampling(keep=f"{100 * candidate.downsample:g}%").shown(sizes, samples[0].picture),
            ) if candidate.downsample else samples[0]  # fmt: skip
            alone = Evaluator(model, prompter, features, objective=objective)
            if objective == "kl":
                alone._unpruned(samples[0])
            plain = replace(candidate, downsample=None)
            (score,) = alone.scores(seen, [plain], how.of_smaller(candidate.downsample)).score
            assert together[number] == pytest.approx(score, abs=1e-4)


def test_a_smaller_picture_keeps_a_larger_share():
    relative = RelativeSchedule(parse_budget("30%"), 32)
    assert of_smaller(relative, 0.5).budget.percent == pytest.approx(60)
    assert of_smaller(relative, 0.25).changing == ()
    assert of_smaller(ShareSchedule(32, (0,), (0.3,)), 0.5).shares == (pytest.approx(0.6),)
    assert of_smaller(ShareSchedule(32, (0,), (0.3,)), 0.2).shares == (1.0,)


def test_what_cannot_be_shown_smaller_is_refused(bench, tmp_path):
    model, processor, samples, _ = bench
    small = space(adapter_for(model).vision_layers).prototypes[1].model_copy(update={"downsample": 0.01})
    options = cc.CalibrationOptions(
        pruning=OPTIONS, space=SearchSpace(prototypes=(small,), rhos=(0.5,)), strategy=Grid(), anyway=True
    )
    with pytest.raises(BudgetError, match=r"pictures to 1% of their visual tokens"):
        cc.calibrate(model, processor, samples, BUDGET, options=options)


def test_a_smaller_picture_under_the_floor_of_a_budget_is_refused_before_the_search():
    budget, sample = parse_budget("35%"), Sample("tiny", "What is it?")
    schedule = RelativeSchedule(budget, 8, (1, 2, 4))

    def tokens(_, share):
        return 1 if share else 4

    assert allotted(budget, schedule, [sample], tokens).tokens == (4,)
    with pytest.raises(BudgetError, match=r"'tiny' with downsample 0\.4 becomes 1 visual tokens: .*take downsample"):
        allotted(budget, schedule, [sample], tokens, (0.4,))
