"""What another process makes of a recipe scores and answers as what it is of."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from speaking_models import WORDS, load_speaking

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.model_settings import model_settings
from clasp_calib.calib.scoring.score_tasks import EvaluatorRecipe, ModelRecipe, ScoreTask
from clasp_calib.calib.studies.contest import UNPRUNED, Answerer, AnswererRecipe, AnswerTask, Entrant
from clasp_calib.calib.studies.entrants import nothing
from clasp_calib.common.errors import StudyError

LAYERS = (1, 3)
CANDIDATES = (Candidate("own", (0.0, 0.0, 0.0, 1.0, 0.0), 1.0), Candidate("mixed", (0.0, 0.5, 0.0, 0.5, 0.0), 1.0))


@pytest.fixture
def recipe(bench):
    return ModelRecipe.of(bench.model, bench.processor, torch.get_num_threads())


def test_an_evaluator_scores_as_the_one_here(bench, recipe):
    here = Evaluator(bench.model, bench.prompter, CachedFeatures(bench.store, LAYERS), max_new_tokens=3)
    other = EvaluatorRecipe(recipe, bench.prompter.template, bench.store.root, LAYERS, max_new_tokens=3)
    assert (other.device, other.threads) == ("cpu", torch.get_num_threads())
    made = other.made()
    for sample in bench.samples[:4]:
        task = ScoreTask(replace(sample, answers=tuple(WORDS[:3])), CANDIDATES, Pruning(None))
        assert task.done_with(made) == task.done_with(here)


def test_an_answerer_answers_as_the_one_here(bench, recipe):
    here = Answerer(bench.model, bench.processor, bench.prompter, 3)
    made = AnswererRecipe(recipe, bench.prompter.template, 3).made()
    task = AnswerTask(bench.samples[0], ((Entrant(UNPRUNED, "100%", nothing), 0),))
    assert task.done_with(made) == task.done_with(here)


def test_a_model_that_was_changed_in_memory_is_not_answered_for_by_another(bench, recipe):
    model, processor = load_speaking(Path(bench.model.config._name_or_path))
    model.generation_config.repetition_penalty = 1.5
    with pytest.raises(StudyError, match=r"other generation config than .*save_pretrained"):
        ModelRecipe.of(model, processor, 1).loaded()
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    with pytest.raises(StudyError, match=r"other weights, generation config than the process that began has"):
        ModelRecipe.of(model, processor, 1).loaded()


CHANGES = {
    "picture settings of the processor": lambda model, processor: setattr(
        processor.image_processor, "do_rescale", False
    ),
    "attention implementation": lambda model, processor: model.set_attn_implementation("eager"),
    "model configuration": lambda model, processor: setattr(model.config.get_text_config(), "rms_norm_eps", 0.1),
}
TEXTS = (
    lambda processor: processor.tokenizer.add_tokens(["unheard-of"]),
    lambda processor: setattr(processor, "chat_template", "{{ messages }}"),
    lambda processor: setattr(processor.tokenizer, "chat_template", "{{ messages }}"),
    lambda processor: setattr(processor, "num_additional_image_tokens", 7),
)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        *CHANGES.items(),
        *(("tokenizer or chat template", lambda model, processor, one=one: one(processor)) for one in TEXTS),
    ],
)
def test_what_was_told_a_model_or_its_processor_in_memory_is_not_lost(bench, said, change):
    model, processor = load_speaking(Path(bench.model.config._name_or_path))
    change(model, processor)
    with pytest.raises(StudyError, match=rf"a worker loaded .* with other {said} than the process that began has"):
        ModelRecipe.of(model, processor, 1).loaded()


def test_calls_and_another_dtype_leave_no_trace(bench):
    model, processor = load_speaking(Path(bench.model.config._name_or_path))
    before = model_settings(model, processor)
    processor.tokenizer(["a", "a a a"], padding=True, truncation=True, max_length=2)
    assert model_settings(model.to(torch.bfloat16), processor) == before
