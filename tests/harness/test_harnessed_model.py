"""A tiny model that speaks, under every way of pruning: batches change nothing, and classes their own settings."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from served_artifacts import served_artifact
from speaking_models import load_speaking, speaking_llava_directory, write_picture, write_samples

import clasp_calib as cc
from clasp_calib.common.errors import ComputationError, InputError
from clasp_calib.harness.harness_options import HarnessOptions
from clasp_calib.harness.harnessed_model import HarnessedModel
from clasp_calib.harness.lmms_requests import BEAMS
from clasp_calib.harness.prompted_request import PromptedRequest

QUESTIONS = ("What color is the cup?", "How many cats are there?", "What is to the left of the ball in this picture?")
SETTINGS = {
    "attribute": {"layers": {1: 0.5, 3: 0.5}, "rho": 0.5},
    "counting": {"rho": 1.0},
    "spatial": {"layers": {2: 1.0}, "rho": 0.0},
    "default": {},
}
TEMPLATE = "USER: <image>\n{question} ASSISTANT:"


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    return load_speaking(speaking_llava_directory(tmp_path_factory.mktemp("speaking") / "model", decoder_layers=17))


@pytest.fixture(scope="module")
def artifact(speaking, tmp_path_factory):
    made = served_artifact(speaking[0], ["6"], SETTINGS, TEMPLATE, class_from="class")
    place = tmp_path_factory.mktemp("artifact") / "artifact"
    made.save(place)
    return place


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    pictures = [Image.open(write_picture(root / f"{seed}.png", seed)) for seed in range(6)]
    return [
        PromptedRequest.of_text(f"request {place}", QUESTIONS[place % 3], QUESTIONS[place % 3], [picture])
        for place, picture in enumerate(pictures)
    ]


def model_of(speaking, **options):
    return HarnessedModel(*speaking, HarnessOptions("speaking", **options))


def answered(speaking, requests, **options):
    found = dict(model_of(speaking, **options).answers(requests, 6))
    return [found[place] for place in range(len(requests))]


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"method": "default", "budget": "8"},
        {"method": "random", "budget": "8"},
        {"method": "fastv", "budget": "8"},
        {"method": "divprune", "budget": "8"},
        {"method": "random-input", "budget": "8"},
    ],
)
def test_batches_change_nothing(way, speaking, requests):
    alone, together = (answered(speaking, requests, **way, batch_size=size) for size in (1, 4))
    assert [one.text for one in alone] == [one.text for one in together]
    assert [(one.before, one.kept) for one in alone] == [(one.before, one.kept) for one in together]
    assert len({one.text for one in alone}) > 1
    assert all((one.kept < one.before) == bool(way) for one in alone)


def test_batches_change_nothing_under_an_artifact(speaking, requests, artifact):
    way = {"artifact": str(artifact), "classes": "counting"}
    alone, together = (answered(speaking, requests, **way, batch_size=size) for size in (1, 4))
    assert [one.text for one in alone] == [one.text for one in together]
    assert {(one.label, one.before, one.kept) for one in alone} == {("counting", alone[0].before, 6.0)}


def test_answers_are_those_of_generate(speaking, requests, artifact):
    found = answered(speaking, requests, artifact=str(artifact), classes="attribute", batch_size=4)
    for request, answer in zip(requests, found, strict=True):
        options = cc.GenerationOptions(class_="attribute", max_new_tokens=6)
        one = cc.generate(*speaking, request.media[0], request.question, artifact=artifact, options=options)
        assert one.text == answer.text


def test_classes_are_those_of_the_questions(speaking, requests, artifact, monkeypatch):
    from clasp_calib.harness import pruning_ways

    told = []

    def by_words(questions, artifact):
        told.extend(questions)
        return ["counting" if "How many" in question else "spatial" for question in questions]

    monkeypatch.setattr(pruning_ways, "classes_of", by_words)
    asked = [replace(request, question=f"{request.question}!") for request in requests]
    found = answered(speaking, asked, artifact=str(artifact), batch_size=4)
    assert [one.label for one in found] == ["spatial", "counting", "spatial"] * 2
    assert told[-6:] == [request.question for request in asked]
    every = {
        label: answered(speaking, asked, artifact=str(artifact), classes=label) for label in ("counting", "spatial")
    }
    assert [one.text for one in every["counting"]] != [one.text for one in every["spatial"]]
    for label, fixed in every.items():
        assert [one.text for one in found if one.label == label] == [
            fixed[place].text for place, one in enumerate(found) if one.label == label
        ]


def test_requests_without_pictures_are_answered_beside_others(speaking, requests):
    mixed = [*requests[:2], PromptedRequest.of_text("text", "Which?", "Which?", ()), requests[2]]
    found = answered(speaking, mixed, method="default", budget="8", batch_size=4)
    assert (found[2].before, found[2].kept) == (0, 0)
    assert [found[place].text for place in (0, 1, 3)] == [
        one.text for one in answered(speaking, requests[:3], method="default", budget="8")
    ]


def test_beams_are_counted_once_a_request(speaking, requests):
    model = model_of(speaking, method="default", budget="8", batch_size=3)
    found = dict(model.answers(requests[:3], 4, {"num_beams": 2, **BEAMS}))
    assert {one.text for one in found.values()} != {""}
    assert {one.kept for one in found.values()} == {
        answered(speaking, requests[:1], method="default", budget="8")[0].kept
    }


def test_sampled_answers_follow_the_seed(speaking, requests):
    model, how = model_of(speaking, batch_size=4), {"do_sample": True, "temperature": 2.0, "top_p": 0.9}

    def sampled(seed):
        torch.manual_seed(seed)
        return [answer.text for _, answer in model.answers(requests, 6, how)]

    assert sampled(0) == sampled(0) != sampled(1)


def test_likelihoods_are_those_of_a_forward(speaking, requests):
    model, processor = speaking
    (one, other) = model_of(speaking).likelihoods(requests[0], [" red", "two"])
    text = f"{model_of(speaking).template.replace('{question}', requests[0].question)} red"
    both = processor(images=[requests[0].media[0]], text=text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**both).logits[0, -2].float()
    expected = -logits.log_softmax(-1)[both["input_ids"][0, -1]]
    assert one.loss == pytest.approx(float(expected), rel=1e-5)
    said = answered(speaking, requests[:1])[0].text
    assert (one.greedy, other.greedy) == (said.startswith("red"), said.startswith("two"))


@pytest.mark.parametrize("way", [{"method": "default"}, {"method": "fastv"}, {"method": "divprune"}])
def test_the_answer_that_is_given_is_the_greedy_one_under_pruning_too(way, speaking, requests):
    model = model_of(speaking, **way, budget="8")
    for request in requests[:3]:
        (answer,) = [answer for _, answer in model.answers([request], 1)]
        words = ["yes", "no", "red", "two"]
        found = dict(zip(words, model.likelihoods(request, words), strict=True))
        assert [word for word in words if found[word].greedy] == answer.text.split()[:1]
        assert {one.kept for one in found.values()} == {answer.kept}


def test_an_answer_of_nothing_has_no_likelihood(speaking, requests):
    with pytest.raises(InputError, match="request 0 asks how likely an empty answer is"):
        model_of(speaking).likelihoods(requests[0], [" "])


def test_knobs_that_follow_from_pictures_are_solved_on_a_table(speaking, requests, tmp_path):
    with pytest.raises(InputError, match=r"the knobs of prumerge follow from what is in pictures; .* solve_on=FILE"):
        model_of(speaking, method="prumerge", budget="8")
    table = write_samples(tmp_path, {"calibration": 8})
    found = answered(speaking, requests, method="prumerge", budget="8", solve_on=str(table))
    assert sum(one.kept for one in found) / len(found) < found[0].before


def test_a_failing_request_is_named(speaking, requests, monkeypatch):
    model = model_of(speaking)
    monkeypatch.setattr(speaking[0], "generate", lambda **_: 1 / 0)
    with pytest.raises(ComputationError, match=r"answering request 0 failed \(ZeroDivisionError"):
        list(model.answers(requests[:1], 4))
