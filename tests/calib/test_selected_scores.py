"""What is counted of candidates whose tokens another method chooses is what the live model says under that method."""

from dataclasses import replace

import pytest
import torch
from speaking_architectures import CASES, speaking_directory, speaking_processor, write_questions
from transformers import AutoModelForImageTextToText

import clasp_calib as cc
from clasp_calib.baselines.vispruner import VisPruner
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.calib.studies.timing import applied
from clasp_calib.common import plugins
from clasp_calib.common.errors import InputError, ModelError
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.runtime import selectors
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.answering import answer
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.served_alike import check_served_as_scored
from clasp_calib.search.solved_selectors import solved_choice

BUDGET, LONGEST, OPTIONS = "40%", 6, cc.PruningOptions(profile="input")
ARCHITECTURES = ("llava", "llava_next", "qwen2_5_vl")
EACH_KIND = ("fastv", "divprune", "vispruner")
"""One that chooses inside the decoder, one before it, and one that looks at the tower's attention."""
BROUGHT = plugins.brought(selectors.GROUP)
NAMES = sorted(name for name, (point, *_) in BROUGHT.items() if point.dist.name == "clasp-calib")
PAIRS = [
    pytest.param(of, name, marks=() if of == "llava" or name in EACH_KIND else pytest.mark.slow)
    for of in ARCHITECTURES
    for name in NAMES
]


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
    return Evaluator(model, Prompter(processor, model), features, LONGEST), alphas


@pytest.mark.parametrize(("bench", "name"), PAIRS, indirect=["bench"])
def test_what_is_counted_is_what_the_live_model_says(bench, name):
    """Together with candidates of the dual-stage selection, in one pass and generated."""
    model, processor, samples = bench
    evaluator, alphas = evaluator_of(model, processor)
    choice = solved_choice(SelectorChoice(name), model, parse_budget(BUDGET), filmed=False)
    pruning = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS)
    candidates = [Candidate(str(n), alpha, 1.0, selector=choice) for n, alpha in enumerate(alphas)]
    mixed = [candidates[0], Candidate("own", alphas[0], 1.0), candidates[1]]
    prompter = Prompter(processor, model)

    def live(sample, candidate, longest):
        picture, setting = load_picture(sample.image, processor), Setting("x", pruning, {sample.label: candidate})
        prompt = prompter.text(sample.question)
        return answer(model, processor, picture, prompt, longest, applied(model, setting, sample))

    check_served_as_scored(model, prompter, evaluator, mixed, pruning, samples[0])
    for sample in samples[::5]:
        said = [evaluator.answers(sample, mixed, pruning)[row] for row in (0, 2)]
        for candidate, text in zip(candidates, said, strict=True):
            shown = live(sample, candidate, LONGEST)
            assert shown.text == text
            (tokens,) = shown.stats.mean_tokens
            assert tokens == pytest.approx(0.4 * len(shown.stats.stages[0].arrived_BN[0]), abs=1)
            asked = replace(sample, answers=(text or "?",))
            # What was cut off at the limit goes on beyond it, or ends there.
            ended = live(sample, candidate, prompter.limit(asked, LONGEST)).text
            score = evaluator.scores(asked, mixed, pruning).score[mixed.index(candidate)]
            assert score == float(ended == asked.answers[0])


def test_a_method_sees_the_mixture(bench, monkeypatch):
    """Live and of features: states that the projector makes the tokens of, the same in both."""
    model, processor, samples = bench
    evaluator, (_, mixed) = evaluator_of(model, processor)
    pruning, seen = Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS), []
    plain = VisPruner.kept

    def watched(self, image, token_P, count):
        seen.append(image)
        return plain(self, image, token_P, count)

    monkeypatch.setattr(VisPruner, "kept", watched)
    choice = solved_choice(SelectorChoice("vispruner"), model, parse_budget(BUDGET), filmed=False)
    candidate, sample = Candidate("x", mixed, 1.0, selector=choice), samples[0]
    evaluator.answers(sample, [candidate], pruning)
    of_features = seen[0]
    seen.clear()
    with torch.inference_mode(), applied(model, Setting("x", pruning, {sample.label: candidate}), sample):
        model.generate(**Prompter(processor, model).inputs(model, sample), max_new_tokens=1)
    assert seen
    for image in (of_features, seen[0]):
        torch.testing.assert_close(image.project(image.states_UC), image.features_ND, rtol=1e-4, atol=1e-4)
    for name in ("features_ND", "states_UC"):
        torch.testing.assert_close(getattr(seen[0], name), getattr(of_features, name), rtol=1e-2, atol=1e-2)
    received = [next(iter(image.attention.values())).received().mean(0) for image in (seen[0], of_features)]
    shown_N = seen[0].layout.cell_N[seen[0].layout.cell_N >= 0]
    torch.testing.assert_close(received[0][shown_N], received[1][shown_N])


def test_one_that_looks_at_what_is_not_kept_is_refused(bench, monkeypatch):
    model, processor, samples = bench
    point = type(
        "Point", (), {"load": lambda self: __import__("clasp_calib.baselines.visionzip", fromlist=["x"]).VisionZip}
    )
    monkeypatch.setattr(plugins, "brought", lambda _: {"visionzip": [point()]})
    evaluator, (alpha, _) = evaluator_of(model, processor)
    candidate = Candidate("x", alpha, 1.0, selector=SelectorChoice.of("visionzip", {"keep": BUDGET}))
    with pytest.raises(ModelError, match="not its keys; a selector that needs it cannot be searched"):
        evaluator.answers(samples[0], [candidate], Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS))


def test_one_that_looks_at_another_block_is_refused(bench, monkeypatch):
    model, processor, samples = bench
    evaluator, (alpha, _) = evaluator_of(model, processor)
    monkeypatch.setattr(VisPruner, "tower_blocks", lambda self, adapter: (0, adapter.attention_block))
    candidate = Candidate("x", alpha, 1.0, selector=SelectorChoice.of("vispruner", {"keep": BUDGET}))
    with pytest.raises(ModelError, match="not its attention in block 0; a selector that needs it"):
        evaluator.answers(samples[0], [candidate], Pruning(schedule_for(model, BUDGET, OPTIONS), OPTIONS))


def test_those_for_images_refuse_videos(bench):
    with pytest.raises(InputError, match="'divprune' is defined for images"):
        solved_choice(SelectorChoice("divprune"), bench[0], parse_budget(BUDGET), filmed=True)
    assert solved_choice(SelectorChoice("fastv"), bench[0], parse_budget(BUDGET), filmed=True).name == "fastv"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fastv", "cannot be pruned with profile='layered'"),
        ("divprune", "attends with a sliding window"),
    ],
)
def test_a_model_that_it_does_not_run_on_is_refused(name, message):
    model = CASES["gemma3"].model()
    with pytest.raises(ModelError, match=message):
        solved_choice(SelectorChoice(name), model, parse_budget(BUDGET), filmed=False)
