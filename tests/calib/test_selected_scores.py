"""What is counted of candidates whose tokens another method chooses is what the live model says under that method."""

from dataclasses import replace

import pytest
import torch
from speaking_architectures import speaking_directory, speaking_processor, write_questions
from transformers import AutoModelForImageTextToText

import clasp_calib as cc
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.timing import applied
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime import selectors
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.answering import answer
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.solved_selectors import solved_choice

BUDGET, LONGEST, OPTIONS = "40%", 16, cc.PruningOptions(profile="input")
ARCHITECTURES = ("llava", "llava_next", "qwen2_5_vl")
NAMES = sorted(name for name, (point, *_) in selectors._brought().items() if point.dist.name == "clasp-calib")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bench(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    directory = speaking_directory(root / "model", request.param)
    model, processor = AutoModelForImageTextToText.from_pretrained(directory).eval(), speaking_processor(request.param)
    table = cc.load_samples(write_questions(root, request.param, {"calibration": 4}))
    return model, processor, [s for s in table if s.modality == "image" and len(s.media) == 1]


def evaluator_of(model, processor):
    """And two mixtures."""
    own, last = adapter_for(model).own_layer, adapter_for(model).vision_layers
    mixtures = [{own: 1.0}, {own: 0.5, 1: 0.5}]
    alphas = [tuple(of.get(layer, 0.0) for layer in range(last + 1)) for of in mixtures]
    features = open_source(None, model, processor).at(tuple(sorted({1, own})))
    return Evaluator(model, Prompter(processor, model), features), alphas


@pytest.mark.parametrize("name", NAMES)
def test_what_is_counted_is_what_the_live_model_says(bench, name):
    """Together with candidates of the dual-stage selection, in one pass and generated."""
    model, processor, samples = bench
    evaluator, alphas = evaluator_of(model, processor)
    choice = solved_choice(SelectorChoice(name), model, parse_budget(BUDGET), filmed=False)
    pruning = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS)
    candidates = [Candidate(str(n), alpha, 1.0, selector=choice) for n, alpha in enumerate(alphas)]
    mixed = [candidates[0], Candidate("own", alphas[0], 1.0), candidates[1]]
    for sample in samples[::3]:
        said = [evaluator.answers(sample, mixed, pruning)[row] for row in (0, 2)]
        for candidate, text in zip(candidates, said, strict=True):
            asked = replace(sample, answers=(text or "?",))
            score = evaluator.scores(asked, mixed, pruning).score[mixed.index(candidate)]
            # An answer that has no end is none.
            assert score == float(0 < len(text.split()) < LONGEST)
            prompt, setting = (
                Prompter(processor, model).text(sample.question),
                Setting("x", pruning, {sample.label: candidate}),
            )
            live = answer(
                model,
                processor,
                load_picture(sample.image, processor),
                prompt,
                LONGEST,
                applied(model, setting, sample),
            )
            assert live.text == text
            (tokens,) = live.stats.mean_tokens
            assert tokens == pytest.approx(0.4 * len(live.stats.stages[0].arrived_BN[0]), abs=1)


@pytest.mark.parametrize("name", ["divprune", "vispruner"])
def test_mixtures_change_what_is_chosen(bench, name):
    """Else the test above would tell nothing of how they reach a method that chooses before the decoder."""
    model, processor, samples = bench
    _, alphas = evaluator_of(model, processor)
    pruning = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS)
    choice, kept = solved_choice(SelectorChoice(name), model, parse_budget(BUDGET), filmed=False), []
    for alpha in (alphas[0], (1.0, *(0.0 for _ in alphas[0][1:]))):
        candidate = Candidate("x", alpha, 1.0, selector=choice)
        for sample in samples[::2]:
            inputs, setting = (
                Prompter(processor, model).inputs(model, sample),
                Setting("x", pruning, {sample.label: candidate}),
            )
            with torch.inference_mode(), applied(model, setting, sample) as run:
                model.generate(**inputs, max_new_tokens=1)
            kept.append(run.stats.stages[0].kept(0))
    assert kept[: len(kept) // 2] != kept[len(kept) // 2 :]


def test_one_that_looks_at_what_is_not_kept_is_refused(bench, monkeypatch):
    model, processor, samples = bench
    point = type(
        "Point", (), {"load": lambda self: __import__("clasp_calib.baselines.visionzip", fromlist=["x"]).VisionZip}
    )
    monkeypatch.setattr(selectors, "_brought", lambda: {"visionzip": [point()]})
    evaluator, (alpha, _) = evaluator_of(model, processor)
    candidate = Candidate("x", alpha, 1.0, selector=SelectorChoice.of("visionzip", {"keep": BUDGET}))
    with pytest.raises(ModelError, match="not its keys; a selector that needs it cannot be searched"):
        evaluator.answers(samples[0], [candidate], Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS))


def test_those_for_images_refuse_videos(bench):
    with pytest.raises(InputError, match="'divprune' is defined for images"):
        solved_choice(SelectorChoice("divprune"), bench[0], parse_budget(BUDGET), filmed=True)
    assert solved_choice(SelectorChoice("fastv"), bench[0], parse_budget(BUDGET), filmed=True).name == "fastv"
