"""An artifact inside vLLM against the same artifact on transformers, and an artifact that is not there."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from served_answers import answered, close, engine_of, gap, noted_choices, on_transformers
from served_artifacts import served_artifact

from clasp_calib.artifacts.files import write_artifact
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.routing import classes_of
from clasp_calib.serving.served import ServedArtifact

pytestmark = pytest.mark.vllm

IMAGE_TOKEN, TOKENS = 4, 576
BUDGETS = ["64", "192"]
DEEP = {0: 0.1, 2: 0.3, 7: 0.6}
"""Reaches behind the projected layer, 6."""
SETTINGS = {
    "object": {"layers": {3: 0.5, 6: 0.5}, "rho": 0.5},
    "attribute": {"selector": ("divprune", {}), "layers": {3: 0.5, 6: 0.5}},
    "text": {"rho": 0.0},
    "scene": {"layers": DEEP, "rho": 0.3, "seeding": "farthest"},
    "spatial": {"relevance": "mean-attention", "rho": 0.7},
    "counting": {"selector": ("fastervlm", {})},
    "action": {},
    "function": {"layers": DEEP, "relevance": "mean-attention"},
    "default": {"rho": 0.2},
}
"""Peers that do not decide between near ties in long chains: what VisPruner keeps depends on the last bits."""
QUESTIONS = 100


@pytest.fixture(scope="module")
def model():
    return load_model(str(MODEL))


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("served") / "artifact"
    write_artifact(served_artifact(model[0], BUDGETS, SETTINGS, PROMPT), place)
    return place


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Questions about embedded pictures, the classes that the packaged router finds, other classes for some."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_benchmark(folder, {"calibration": 0, "selection": 0, "test": 13}, file_format="jsonl")
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()][:QUESTIONS]
    assert len(rows) == QUESTIONS
    routed = classes_of([row["question"] for row in rows])
    return [
        SimpleNamespace(
            prompt=PROMPT.format(question=row["question"]),
            picture=Image.open(folder / row["image"]).convert("RGB"),
            label=label if number % 3 else list(SETTINGS)[number % 9],
            routed=bool(number % 3),
            budget=BUDGETS[number % 2],
        )
        for number, (row, label) in enumerate(zip(rows, routed, strict=True))
    ]


@pytest.fixture(scope="module")
def engine(artifact):
    """Of chunks that divide pictures, and a prefix cache."""
    return engine_of(
        MODEL, artifact, BUDGETS[0], max_model_len=640, max_num_batched_tokens=160, enable_prefix_caching=True
    )


def asked(question, **said):
    kwargs = {"clasp_budget": question.budget} | ({} if question.routed else {"clasp_class": question.label}) | said
    return {
        "prompt": question.prompt,
        "multi_modal_data": {"image": question.picture},
        "mm_processor_kwargs": {name: value for name, value in kwargs.items() if value is not None},
    }


def answers(engine, prompts):
    return answered(engine, prompts, IMAGE_TOKEN)


@pytest.fixture(scope="module")
def kept():
    with noted_choices() as found:
        yield found


@pytest.fixture(scope="module")
def batched(engine, kept, questions):
    return answers(engine, [asked(question) for question in questions])


def test_answers_probabilities_and_tokens_are_those_of_transformers(model, artifact, questions, batched, kept):
    served = ServedArtifact.of(SimpleNamespace(clasp=resolved_of(artifact)))
    for question, found in zip(questions, batched, strict=True):
        expected, number = (
            on_transformers(*model, artifact, question),
            served.entry_index(question.label, question.budget),
        )
        assert found.visual == int(question.budget) == len(expected.places)
        assert (number, expected.places) in kept
        assert found.ids == expected.ids
        assert gap(found, expected) < 1e-4
    assert {number for number, _ in kept} >= {served.entry_index(q.label, q.budget) for q in questions}


def resolved_of(artifact):
    from clasp_calib.serving.resolving import resolved

    config = load_model(str(MODEL))[0].config
    return resolved(config, {"artifact": str(artifact), "budget": BUDGETS[0]}, str(MODEL))[0].to_dict()


def test_another_class_is_another_answer(engine, questions, batched):
    """So that the comparisons above can fail."""
    others = [asked(q, clasp_class=list(SETTINGS)[list(SETTINGS).index(q.label) - 4]) for q in questions[:20]]
    apart = [a.steps[0] != b.steps[0] for a, b in zip(batched, answers(engine, others), strict=False)]
    assert sum(apart) > 15


def test_what_the_prefix_cache_holds_is_of_the_same_tokens(engine, questions, batched):
    again = answers(engine, [asked(question) for question in questions])
    assert sum(found.cached > 32 for found in again) > QUESTIONS // 2
    for first, second in zip(batched, again, strict=True):
        assert second.ids == first.ids
        assert close(first, second)


def test_alone_is_as_in_a_batch(engine, questions, batched):
    engine.reset_prefix_cache()
    engine.reset_mm_cache()
    for question, together in list(zip(questions, batched, strict=True))[::10]:
        (alone,) = answers(engine, [asked(question)])
        assert alone.ids == together.ids
        assert close(alone, together)


def test_every_picture_of_a_prompt_is_pruned(engine, questions):
    two = asked(questions[0], clasp_class="object", clasp_budget=None)
    two["prompt"] = "USER: <image>\n<image>\nWhat is it? ASSISTANT:"
    two["multi_modal_data"] = {"image": [questions[0].picture, questions[50].picture]}
    assert answers(engine, [two])[0].visual == 2 * int(BUDGETS[0])


def test_a_prompt_without_a_picture_is_left_alone(engine):
    (found,) = answers(engine, [{"prompt": "USER: hello ASSISTANT:"}])
    assert found.visual == 0
    assert found.ids


@pytest.mark.parametrize("side", [1, 14, 2000])
def test_pictures_of_any_size_have_the_model_s_own_number_of_tokens(engine, questions, side):
    small = SimpleNamespace(**{**vars(questions[0]), "picture": Image.new("RGB", (side, side), "red")})
    assert answers(engine, [asked(small)])[0].visual == int(small.budget)


@pytest.mark.parametrize(
    ("said", "told"),
    [({"clasp_class": "telepathy"}, "no class 'telepathy'"), ({"clasp_budget": "128"}, "no budget '128'")],
)
def test_an_unknown_class_or_budget_is_refused_and_the_engine_lives(engine, questions, said, told):
    with pytest.raises(ValueError, match=told):
        answers(engine, [asked(questions[1], **said)])
    assert answers(engine, [asked(questions[1])])


def test_two_ranks_keep_what_one_does(artifact, questions, batched):
    """Each has half of the tower's heads, and processes of their own: only answers can be compared."""
    divided = engine_of(MODEL, artifact, BUDGETS[0], max_model_len=640, tensor_parallel_size=2)
    for one, two in zip(batched, answers(divided, [asked(question) for question in questions[:18]]), strict=False):
        assert two.ids == one.ids
        assert close(one, two)


def test_without_an_artifact_it_is_the_model_itself(model, questions):
    plain = engine_of(MODEL, max_model_len=640, max_num_batched_tokens=640, enable_prefix_caching=False)
    prompts = [{"prompt": q.prompt, "multi_modal_data": {"image": q.picture}} for q in questions[:8]]
    loaded, processor = model
    for question, found in zip(questions[:8], answers(plain, prompts), strict=True):
        inputs = processor(images=question.picture, text=question.prompt, return_tensors="pt")
        out = loaded.generate(**inputs, do_sample=False, max_new_tokens=8)
        assert found.visual == TOKENS
        assert found.ids == out[0, inputs["input_ids"].shape[1] :].tolist()
