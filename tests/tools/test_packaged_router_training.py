"""How the packaged router is trained: noise keeps the kind of a question, and a student learns what it is told."""

import random

import numpy as np
import pytest

pytest.importorskip("sklearn")

from clasp_calib.router_labeling.ngrams import Hashing, canonical, features
from clasp_calib.router_labeling.taxonomy import packaged
from tools.labels import student
from tools.labels.noise import content_words, neighbours, noised
from tools.labels.piece_vectors import reduced
from tools.labels.router import WRITTEN_QUESTIONS

THINGS = "dog cat car boat tree lamp shoe bird plane chair apple cup horse truck table door".split()  # noqa: SIM905


def test_noise_changes_content_words_and_keeps_what_asks():
    near = {"dog": ["puppy"], "window": ["door"]}
    drawn = [noised("How many dogs, or a dog, by the window?", near, ["zebra"], random.Random(i)) for i in range(200)]
    texts = [text.casefold() for text in drawn]
    assert sum("how many" in text for text in texts) > 180
    assert {"puppy", "door", "zebra"} <= {word for text in texts for word in content_words(text)}
    assert "window" in " ".join(texts)
    assert len(set(drawn)) > 100


def test_neighbours_are_the_nearest_words():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors[1] = vectors[0] * 3
    words = [f"w{i}" for i in range(40)]
    found = neighbours(words, vectors, ["w0", "strange"])
    assert "w1" in found["w0"]
    assert "w0" not in found["w0"]
    assert set(found) == {"w0"}


@pytest.fixture(scope="module")
def pieces():
    words = packaged("assets/minilm-vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return reduced(np.random.default_rng(0).normal(size=(len(words), 32)).astype(np.float32), width=16)


def test_reduced_vectors_keep_directions(pieces):
    vectors, scales = pieces
    assert vectors.dtype == np.int8
    dense = vectors * scales[:, None]
    assert dense[999:20_000].std() == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_a_student_learns_what_it_is_told_and_numpy_repeats_it(pieces, monkeypatch):
    monkeypatch.setattr(student, "EPOCHS", 30)
    said = ("how many {} are there", "what colour is the {}")
    questions = [text.format(thing) for thing in THINGS for text in said] * 8
    truth = np.tile([0, 1], len(questions) // 2)
    lesson = student.Lesson(
        questions,
        np.eye(2, dtype=np.float32)[truth],
        np.ones(len(questions), np.float32),
        np.random.default_rng(0).normal(size=(len(questions), 4)).astype(np.float16),
    )
    hashing = Hashing(8)
    weights, bias = student.train_ngrams(lesson, hashing, 0)
    network, shift = student.train_network(lesson, *pieces, 0)
    for question, label in zip(questions[:32], truth[:32], strict=True):
        found = features(question, hashing)
        assert (weights[found].sum(0) / np.sqrt(len(found)) + bias).argmax() == label
        assert (network.logits(canonical(question)) + shift).argmax() == label


def test_no_written_question_stands_twice():
    lines = WRITTEN_QUESTIONS.read_text(encoding="utf-8").splitlines()
    assert len({line.casefold() for line in lines}) == len(lines) > 5000
