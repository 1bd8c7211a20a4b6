"""An artifact on LLaVA-NeXT inside vLLM, whose pictures are cut into tiles, against transformers."""

from types import SimpleNamespace

import pytest
from PIL import Image
from served_answers import answered, close, engine_of, gap, noted_choices, on_transformers
from served_artifacts import served_artifact
from speaking_architectures import speaking_directory, speaking_processor
from speaking_models import write_picture
from transformers import AutoModelForImageTextToText

from clasp_calib.artifacts.files import write_artifact

pytestmark = pytest.mark.vllm

BUDGET = "40%"
SIZES = [(80, 100), (100, 50), (110, 105), (56, 112), (40, 40)]
SETTINGS = {
    "pivots": {},
    "both": {"layers": {1: 0.3, 4: 0.7}, "rho": 0.5, "relevance": "mean-attention"},
    "coverage": {"rho": 0.0},
    "divprune": {"selector": ("divprune", {}), "layers": {2: 1.0}},
    "fastervlm": {"selector": ("fastervlm", {})},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = speaking_directory(tmp_path_factory.mktemp("next") / "model", "llava_next", end=0.3, heads=1)
    speaking_processor("llava_next").save_pretrained(place)
    return place


def test_answers_probabilities_and_tokens_are_those_of_transformers(place, tmp_path):
    model, processor = AutoModelForImageTextToText.from_pretrained(place).eval(), speaking_processor("llava_next")
    token, prompt = processor.tokenizer.convert_tokens_to_ids("<image>"), "USER: <image>\n{question} ASSISTANT:"
    artifact = tmp_path / "artifact"
    write_artifact(served_artifact(model, [BUDGET], SETTINGS, prompt), artifact)
    questions = [
        SimpleNamespace(
            prompt=prompt.format(question="What is it?"),
            picture=Image.open(write_picture(tmp_path / f"{number}.png", number, *size)).convert("RGB"),
            label=label,
            budget=BUDGET,
        )
        for number, size in enumerate(SIZES)
        for label in SETTINGS
    ]
    prompts = [
        {
            "prompt": question.prompt,
            "multi_modal_data": {"image": question.picture},
            "mm_processor_kwargs": {"clasp_class": question.label},
        }
        for question in questions
    ]
    with noted_choices() as kept:
        engine = engine_of(place, artifact, BUDGET, max_model_len=512, max_num_batched_tokens=128)
        batched = answered(engine, prompts, token)
        for number, (question, found) in enumerate(zip(questions, batched, strict=True)):
            expected = on_transformers(model, processor, artifact, question)
            assert found.visual == len(expected.places), question
            assert (number % len(SETTINGS), expected.places) in kept
            assert found.ids == expected.ids
            assert gap(found, expected) < 1e-3  # of logits ten times those of a trained model
        for first, again in zip(batched, answered(engine, prompts, token), strict=True):
            assert close(first, again)
        two = {**prompts[1], "prompt": prompt.replace("<image>", "<image><image>").format(question="What is it?")}
        two["multi_modal_data"] = {"image": [questions[1].picture, questions[6].picture]}
        (both,) = answered(engine, [two], token)
        assert both.visual == batched[1].visual + batched[6].visual
