"""A calibration of the input profile on a tiny model: what was planted is found, recorded, and served as it scored."""

import json
from dataclasses import replace

import pytest
from speaking_models import load_speaking, speaking_llava_directory, write_samples

from clasp_calib.api.generating import GenerationOptions, generate
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.timing import applied
from clasp_calib.common.errors import InputError
from clasp_calib.common.places import Places
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.samples import Sample
from clasp_calib.crew.crew import Crew
from clasp_calib.runtime.answering import answer
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.pruner import clasp
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.calibrate import Calibration
from clasp_calib.search.calibration_options import CalibrationOptions
from clasp_calib.search.refine import STEPS
from clasp_calib.search.space import Prototype, SearchSpace
from clasp_calib.search.strategies.grid import Grid

BUDGET, OPTIONS = "25%", PruningOptions(profile="input", relevance="class-token", positions="compact")
SPACE = SearchSpace(
    prototypes=(Prototype(name="own", weights={3: 1}), Prototype(name="mixed", weights={1: 0.5, 3: 0.5})),
    rhos=(0.25, 1.0),
    seedings=("redundancy", "farthest"),
)
RATED = SPACE.model_copy(update={"relevances": ("class-token", "mean-attention")})
PLANTED = {
    "attribute": Candidate("mixed", (0, 0.5, 0, 0.5, 0), 0.25, "farthest"),
    "counting": Candidate("mixed", (0, 0.5, 0, 0.5, 0), 1.0),
    "spatial": Candidate("own", (0, 0, 0, 1.0, 0), 0.25, relevance="mean-attention"),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A model, and samples whose accepted answers are those of the class's planted setting."""
    root = tmp_path_factory.mktemp("input")
    model, processor = load_speaking(speaking_llava_directory(root / "model", decoder_layers=5))
    rows = [json.loads(line) for line in write_samples(root, {"calibration": 12, "test": 3}).open()]
    samples = [
        Sample(row["id"], row["question"], root / row["image"], ("?",), split=row["split"], label=row["gold_class"])
        for row in rows
    ]
    cache_features(model, processor, samples, root / "cache", FeatureOptions(layers=(1, 2, 3)))
    evaluator = evaluator_of(model, processor, root / "cache")
    answered = [
        replace(sample, answers=tuple(evaluator.answers(sample, [PLANTED[sample.label]], pruning(model))))
        for sample in samples
    ]
    # Answers of nothing, those that go on for ever, and those that half precision changes, nobody accepts.
    said = [s for s in answered if s.answers[0] and right(evaluator, model, s) and served(model, processor, s)]
    return model, processor, said, root


def right(evaluator, model, sample):
    return evaluator.scores(sample, [PLANTED[sample.label]], pruning(model)).score == (1.0,)


def served(model, processor, sample):
    text = Prompter(processor, model).text(sample.question)
    with applied(model, Setting("planted", pruning(model), PLANTED), sample):
        return answer(model, processor, load_picture(sample.image, processor), text, 16).text == sample.answers[0]


def pruning(model):
    return Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS)


def evaluator_of(model, processor, cache):
    features = open_source(cache, model, processor).at((1, 3))
    return Evaluator(model, Prompter(processor, model), features)


def calibration(bench, place, **options):
    model, processor, samples, root = bench
    told = CalibrationOptions(**{"strategy": Grid(), "space": SPACE, "model_name": "tiny", "anyway": True, **options})
    places = Places(features=root / "cache", study=place / "study", artifact=place / "artifact")
    return Calibration(model, processor, samples, "1" * 64, told, places, Crew())


def test_the_planted_setting_of_every_class_is_found_and_answers_as_it_scored(bench, tmp_path):
    model, processor, samples, _ = bench
    plain = PruningOptions(profile="input")
    (found,) = calibration(bench, tmp_path, pruning=plain, space=RATED).run([parse_budget(BUDGET)])
    artifact = found.save(tmp_path / "artifact")
    assert read_artifact(tmp_path / "artifact").manifest == artifact.manifest
    manifest, entry = artifact.manifest, artifact.entry(BUDGET)
    assert (manifest.profile, manifest.relevance, manifest.positions) == ("input", "class-token", "compact")
    assert (manifest.starts, entry.counts, entry.mean_tokens) == ((0,), (4,), 4.0)
    assert artifact.pruning == OPTIONS
    for label, planted in PLANTED.items():
        assert artifact.alpha(BUDGET, label) == planted.alpha
        assert artifact.rho(BUDGET, label) == planted.rho
        assert artifact.seeding(BUDGET, label) == planted.seeding
        assert entry.choices[label].relevance == planted.relevance
        assert artifact.relevance(BUDGET, label) == (planted.relevance or "class-token")
        assert entry.choices[label].calibration == 1.0
        assert entry.choices[label].default < 1.0
    tested = [sample for sample in samples if sample.split == "test"]
    for sample in tested:
        options = GenerationOptions(sample.label, max_new_tokens=16)
        said = generate(model, processor, sample.image, sample.question, artifact=artifact, options=options)
        assert (said.text,) == sample.answers
        assert said.answer.kept == (4,)
    texts = [Prompter(processor, model).text(sample.question) for sample in tested]
    pictures = [load_picture(sample.image, processor) for sample in tested]
    inputs = processor(images=pictures, text=texts, return_tensors="pt", padding=True, padding_side="left")
    with clasp(model, artifact, budget=BUDGET, classes=[sample.label for sample in tested]):
        batch = model.generate(**inputs, max_new_tokens=16)[:, inputs["input_ids"].shape[1] :]
    assert [(text.strip(),) for text in processor.batch_decode(batch, skip_special_tokens=True)] == [
        sample.answers for sample in tested
    ]
    with pytest.raises(InputError, match="leave the profile out"):
        generate(model, processor, sample.image, "?", artifact=artifact, options=replace(options, profile="input"))


def test_without_a_relevance_all_candidates_cover(bench, tmp_path):
    covering = PruningOptions(profile="input", relevance="none")
    made = calibration(bench, tmp_path, pruning=covering, refine=True)
    (plan,) = made.plans([parse_budget(BUDGET)])
    assert (plan["candidates a class"], "rho" in plan) == (2, False)
    tries = len(STEPS) * 2 * 2
    assert plan["evaluations at most"] == (2 + tries) * sum(s.split == "calibration" for s in bench[2])
    (artifact,) = made.run([parse_budget(BUDGET)])
    assert artifact.manifest.relevance == "none"
    assert (artifact.rhos == 0).all()
    scored = [json.loads(line[line.index("{") :]) for line in (tmp_path / "study" / "scores.jsonl").open()]
    keys = {key for entry in scored for key in entry.get("candidates", [])}
    assert len(keys) > 2, "refining tried other mixtures"
    assert {key.rpartition(" rho=")[2] for key in keys} == {"0.0"}


def test_ratings_side_by_side_score_as_each_alone(bench):
    model, processor, samples, root = bench
    evaluator = evaluator_of(model, processor, root / "cache")
    candidates = RATED.candidates(4, 3, "class-token")
    assert len({candidate.relevance for candidate in candidates}) == 2
    other = replace(OPTIONS, relevance="mean-attention")
    otherwise = Pruning(schedule_for(model, BUDGET, other), other)
    for sample in samples[:4]:
        together = evaluator.scores(sample, candidates, pruning(model))
        for number, candidate in enumerate(candidates):
            how = otherwise if candidate.relevance else pruning(model)
            alone = evaluator.scores(sample, [replace(candidate, relevance=None)], how)
            assert together.score[number] == alone.score[0]
            assert together.nll[number] == pytest.approx(alone.nll[0], abs=1e-4)


def test_a_space_may_leave_the_models_default_relevance_out(bench, tmp_path):
    space = SPACE.model_copy(update={"relevances": ("mean-attention",)})
    made = calibration(bench, tmp_path, pruning=PruningOptions(profile="input"), space=space)
    (artifact,) = made.run([parse_budget(BUDGET)])
    assert made.summary()["pruning"] == vars(artifact.pruning)
    assert artifact.manifest.relevance == "class-token"
    assert artifact.relevance(BUDGET, "spatial") == "mean-attention"
    assert artifact.alpha(BUDGET, "spatial") == PLANTED["spatial"].alpha


def test_relevances_that_cannot_be_tried_are_refused(bench, tmp_path):
    for pruning_, space, expected in (
        (PruningOptions(), RATED, "profile='input'"),
        (replace(OPTIONS, relevance="none"), RATED, "'none', which the space does not try"),
        (
            replace(OPTIONS, relevance="none"),
            SPACE.model_copy(update={"relevances": ("none", "class-token")}),
            "rate no tokens",
        ),
    ):
        with pytest.raises(InputError, match=expected):
            calibration(bench, tmp_path, pruning=pruning_, space=space)


def test_the_tower_runs_once_for_every_picture(bench):
    model, processor, samples, root = bench
    evaluator, runs = evaluator_of(model, processor, root / "cache"), []
    handle = model.model.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    try:
        for _ in range(2):
            for sample in samples[:6]:
                evaluator.scores(sample, list(PLANTED.values()), pruning(model))
    finally:
        handle.remove()
    assert len(runs) == len({sample.image for sample in samples[:6]})


@pytest.mark.slow
def test_the_commands(bench, tmp_path, command):
    """search, evaluate and generate, on a tower that runs."""
    _, _, samples, root = bench
    rows = [
        {
            **{"id": s.id, "image": str(s.image), "question": s.question, "answers": list(s.answers)},
            **{"split": s.split, "class": s.label},
        }
        for s in samples
    ]
    table = tmp_path / "samples.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ["--run", tmp_path / "run", "--model", root / "model"]
    how = ["--samples", table, "--recompute", "--budget", BUDGET]
    options = ["--profile", "input", "--relevance", "mean-attention", "--strategy", "grid", "--workers", 1]
    assert command("search", *run, *how, *options, "--anyway").code == 0
    found = read_artifact(tmp_path / "run" / "artifact")
    assert (found.manifest.profile, found.manifest.relevance) == ("input", "mean-attention")
    assert command("evaluate", *run, *how, "--workers", 1).code == 0
    assert "calibrated" in read_artifact(tmp_path / "run" / "artifact").entry(BUDGET).results
    asked = ["--model", root / "model", "--image", samples[0].image, "--prompt", "Is it red?", "--json"]
    assert command("generate", "--run", tmp_path / "run", *asked).json["kept"] == [4]
    plain = ["--run", tmp_path / "no", "--budget", "6", "--profile", "input"]
    said = command("generate", *asked, *plain).json
    assert (said["kept"], said["mean_tokens"]) == ([6], 6.0)
    refused = command("search", *run, *how, "--profile", "input", "--starts", "2,6,15")
    assert refused.code == 2
    assert "remove --starts" in " ".join(refused.err.split())
    refused = command("search", *run, *how, "--relevance", "none")
    assert refused.code == 2
    assert "--profile input" in " ".join(refused.err.split())
