"""An artifact on models whose pictures are cut into tiles, inside vLLM and on transformers."""

from importlib import import_module
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
OWN = {
    "pivots": {},
    "both": {"layers": {1: 0.3, 4: 0.7}, "rho": 0.5, "relevance": "mean-attention"},
    "coverage": {"rho": 0.0},
    "farthest": {"layers": {0: 0.2, 3: 0.8}, "rho": 0.6, "seeding": "farthest"},
}
SETTINGS = {
    "llava_next": OWN
    | {
        "divprune": {"selector": ("divprune", {}), "layers": {2: 1.0}},
        "fastervlm": {"selector": ("fastervlm", {})},
    },
    "llava_onevision": OWN,
    "internvl": OWN,
}

INFOS = {
    "llava_next": ("llava_next", "LlavaNextProcessingInfo"),
    "llava_onevision": ("llava_onevision", "LlavaOnevisionProcessingInfo"),
    "internvl": ("interns1", "InternS1ProcessingInfo"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_probabilities_and_tokens_are_those_of_transformers(name, tmp_path, monkeypatch):
    place, settings = speaking_directory(tmp_path / "model", name, end=0.3, heads=1), SETTINGS[name]
    model, processor = AutoModelForImageTextToText.from_pretrained(place).eval(), speaking_processor(name)
    if name == "internvl":
        processor.image_processor.crop_to_patches, processor.image_processor.max_patches = True, 3
    processor.tokenizer.save_pretrained(place)
    (place / "processor_config.json").write_text("{}")
    # One with a processor of videos needs torchvision, and cannot be saved.
    module, info = INFOS[name]
    monkeypatch.setattr(
        vars(import_module(f"vllm.model_executor.models.{module}"))[info],
        "get_hf_processor",
        lambda *_, **__: processor,
    )
    token, prompt = processor.tokenizer.convert_tokens_to_ids("<image>"), "USER: <image>\n{question} ASSISTANT:"
    artifact = tmp_path / "artifact"
    write_artifact(served_artifact(model, [BUDGET], settings, prompt), artifact)
    questions = [
        SimpleNamespace(
            prompt=prompt.format(question="What is it?"),
            picture=Image.open(write_picture(tmp_path / f"{number}.png", number, *size)).convert("RGB"),
            label=label,
            budget=BUDGET,
        )
        for number, size in enumerate(SIZES)
        for label in settings
    ]
    prompts = [
        {
            "prompt": question.prompt,
            "multi_modal_data": {"image": question.picture},
            "mm_processor_kwargs": {"clasp_class": question.label},
        }
        for question in questions
    ]
    limits = {"image": 2} if name == "llava_next" else {"image": 2, "video": 0}
    with noted_choices() as kept:
        engine = engine_of(
            place, artifact, BUDGET, max_model_len=512, max_num_batched_tokens=128, limit_mm_per_prompt=limits
        )
        batched = answered(engine, prompts, token)
        for number, (question, found) in enumerate(zip(questions, batched, strict=True)):
            expected = on_transformers(model, processor, artifact, question)
            assert found.visual == len(expected.places), question
            assert (number % len(settings), expected.places) in kept
            assert found.ids == expected.ids
            assert gap(found, expected) < 1e-3  # of logits ten times those of a trained model
        assert len({found.visual for found in batched}) > 1, "pictures of several numbers of tiles"
        for first, again in zip(batched, answered(engine, prompts, token), strict=True):
            assert close(first, again)
        two = {**prompts[1], "prompt": prompt.replace("<image>", "<image><image>").format(question="What is it?")}
        two["multi_modal_data"] = {"image": [questions[1].picture, questions[7].picture]}
        (both,) = answered(engine, [two], token)
        assert both.visual == batched[1].visual + batched[7].visual
