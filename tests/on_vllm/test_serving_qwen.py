"""An artifact on models whose pictures have as many tokens as they are large, inside vLLM and on transformers."""

from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace

import pytest
from PIL import Image
from served_answers import answered, close, engine_of, gap, noted_choices, on_transformers
from served_artifacts import served_artifact
from speaking_models import write_picture
from tiny_qwen_vl import tiny_qwen_vl_directory, tiny_qwen_vl_processor
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from clasp_calib.artifacts.files import write_artifact

pytestmark = pytest.mark.vllm

INFOS = {"qwen2_5_vl": "Qwen2_5_VLProcessingInfo", "qwen3_vl": "Qwen3VLProcessingInfo"}
BUDGETS = ["50%", "25%"]
SETTINGS = {
    "pivots": {},
    "coverage": {"rho": 0.0},
    "both": {"layers": {0: 0.125, 2: 0.25, 4: 0.625}, "rho": 0.4},
    "farthest": {"layers": {1: 0.5, 3: 0.5}, "rho": 0.3, "seeding": "farthest"},
}
PEERS = {"qwen2_5_vl": {"divprune": {"selector": ("divprune", {}), "layers": {2: 1.0}}}}
SIZES = [(130, 60), (60, 130), (112, 112), (224, 196), (28, 300), (140, 300)]
PROMPT = "USER: <start><image><end>\n{question} ASSISTANT:"


@contextmanager
def serving(name, folder, settings, **changes):
    """A model, an artifact for it, and an engine whose chunks divide pictures, with all caches."""
    place, artifact = tiny_qwen_vl_directory(folder / "model", name), folder / "artifact"
    model, processor = AutoModelForImageTextToText.from_pretrained(place).eval(), tiny_qwen_vl_processor(name)
    write_artifact(served_artifact(model, BUDGETS, settings, PROMPT, **changes), artifact)
    vllm_module, sizes = (import_module(f"vllm.model_executor.models.{module}") for module in (name, "qwen2_vl"))
    with pytest.MonkeyPatch.context() as patch, noted_choices() as kept:
        # One with a processor of videos needs torchvision, and cannot be saved.
        patch.setattr(vars(vllm_module)[INFOS[name]], "get_hf_processor", lambda *_, **__: processor)
        patch.setattr(sizes, "smart_resize", smart_resize)
        if name == "qwen3_vl":
            patch.setattr(vllm_module, "image_smart_resize", smart_resize)
            patch.setattr(vllm_module, "video_smart_resize", lambda height, width, **_: (height, width))
            patch.setattr(vllm_module, "Qwen3VLVideoProcessor", type(processor.video_processor))
        engine = engine_of(
            *(place, artifact, BUDGETS[0]),
            **{"max_model_len": 256, "max_num_batched_tokens": 40, "limit_mm_per_prompt": {"image": 2, "video": 0}},
        )
        yield SimpleNamespace(**locals())


@pytest.fixture(scope="module", params=INFOS)
def tried(request, tmp_path_factory):
    settings = SETTINGS | PEERS.get(request.param, {})
    with serving(request.param, tmp_path_factory.mktemp("served"), settings) as found:
        yield found


@pytest.fixture(scope="module")
def questions(tried):
    return list(questions_of(tried))


def questions_of(tried):
    """About every picture one of each class, at both budgets."""
    for number, size in enumerate(SIZES):
        picture = Image.open(write_picture(tried.folder / f"{number}.png", number, *size)).convert("RGB")
        for place, label in enumerate(tried.settings):
            prompt = PROMPT.format(question=f"What is {'there ' * (place % 2)}it?")
            budget = BUDGETS[(number + place) % 2]
            yield SimpleNamespace(prompt=prompt, picture=picture, label=label, budget=budget)


def asked(question, *more):
    """A prompt of vLLM's, with further pictures."""
    pictures = [question.picture, *(other.picture for other in more)]
    return {
        "prompt": question.prompt.replace("<image>", "<end><start>".join(["<image>"] * len(pictures))),
        "multi_modal_data": {"image": pictures},
        "mm_processor_kwargs": {"clasp_class": question.label, "clasp_budget": question.budget},
    }


def answers(tried, prompts):
    return answered(tried.engine, prompts, tried.model.config.image_token_id)


@pytest.fixture(scope="module")
def batched(tried, questions):
    return answers(tried, [asked(question) for question in questions])


def check(tried, questions, batched):
    """Against transformers."""
    for question, found in zip(questions, batched, strict=True):
        expected = on_transformers(tried.model, tried.processor, tried.artifact, question)
        number = BUDGETS.index(question.budget) * len(tried.settings) + list(tried.settings).index(question.label)
        assert (number, expected.places) in tried.kept
        assert found.visual == len(expected.places)
        assert found.ids == expected.ids
        assert gap(found, expected) < 1e-4


def test_answers_probabilities_and_tokens_are_those_of_transformers(tried, questions, batched):
    check(tried, questions, batched)
    assert max(found.visual for found in batched) > 20
    assert len({tuple(found.ids) for found in batched}) > len(SIZES)


def test_what_the_caches_hold_is_of_the_same_tokens(tried, questions, batched):
    again = answers(tried, [asked(question) for question in questions])
    assert sum(found.cached > 0 for found in again) > len(questions) // 2
    # Beyond all of the picture, so that it is not encoded again.
    assert any(found.cached > found.visual + 10 for found in again)
    for first, second in zip(batched, again, strict=True):
        assert second.ids == first.ids
        assert close(first, second)


def test_alone_is_as_in_a_batch(tried, questions, batched):
    tried.engine.reset_prefix_cache()
    tried.engine.reset_mm_cache()
    for question, together in list(zip(questions, batched, strict=True))[::3]:
        (alone,) = answers(tried, [asked(question)])
        assert alone.ids == together.ids
        assert close(alone, together)


def test_every_picture_of_a_prompt_is_pruned_by_itself(tried, questions, batched):
    others = len(tried.settings)
    pairs = [(questions[at], questions[at + 2 * others]) for at in range(others)]
    found = answers(tried, [asked(*pair) for pair in pairs])
    for at, two in enumerate(found):
        assert two.visual == batched[at].visual + batched[at + 2 * others].visual
        assert close(two, answers(tried, [asked(*pairs[at])])[0])


def test_a_prompt_without_a_picture_is_left_alone(tried):
    (found,) = answers(tried, [{"prompt": "USER: hello ASSISTANT:"}])
    assert found.visual == 0


def test_a_prompt_that_ends_in_a_picture_is_refused_and_the_engine_lives(tried, questions):
    ends = asked(SimpleNamespace(**{**vars(questions[0]), "prompt": "USER: <image>"}))
    with pytest.raises(ValueError, match="ends in a picture; expected text behind it"):
        answers(tried, [ends])
    assert answers(tried, [asked(questions[0])])


def test_coverage_alone_needs_no_attention(tmp_path):
    with serving("qwen2_5_vl", tmp_path, SETTINGS, relevance="none") as tried:
        questions = list(questions_of(tried))
        check(tried, questions, answers(tried, [asked(question) for question in questions]))
