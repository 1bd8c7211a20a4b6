"""Which questions training asks of a scene."""

import random
from collections import Counter

import pytest

from clasp_calib.common.samples import CLASSES
from clasp_calib.reference.families import INTENT
from clasp_calib.reference.questions import SHARE, Question, questions_about
from clasp_calib.reference.scenes import draw_scene
from tools.reference.training.corpus import balanced


def full_scene() -> list[Question]:
    """A scene that answers questions of every family."""
    for seed in range(200):
        scene = draw_scene(seed)
        questions = questions_about(scene, random.Random(seed))
        if {q.family for q in questions} == set(INTENT):
            return questions
    raise AssertionError("no scene answers everything")


def test_balanced_takes_classes_in_turn() -> None:
    questions = full_scene()
    drawn = [q.label for q in balanced(questions, 2 * len(CLASSES), random.Random(0))]
    assert sorted(drawn) == sorted([*CLASSES, *CLASSES])


def test_balanced_takes_families_of_a_class_by_their_shares() -> None:
    questions = full_scene()
    each = 3000
    drawn = Counter(q.family for q in balanced(questions, each * len(CLASSES), random.Random(0)))
    for family, (_, label) in INTENT.items():
        beside = [other for other, (_, of) in INTENT.items() if of == label]
        share = SHARE.get(family, 1.0) / sum(SHARE.get(other, 1.0) for other in beside)
        assert drawn[family] / each == pytest.approx(share, abs=0.04)


def test_answers_cannot_be_guessed_well() -> None:
    """No answer is so frequent that a class would be easy without looking."""
    rng = random.Random(0)
    answers: dict[str, Counter[str]] = {}
    for seed in range(250):
        for question in balanced(questions_about(draw_scene(seed), rng), 18, rng):
            answers.setdefault(question.family, Counter())[question.answer] += 1
    most = {family: max(found.values()) / found.total() for family, found in answers.items()}
    for family in ("present", "larger", "more", "time", "length"):
        assert most[family] < 0.65
    for family in ("kind_of_size_color", "word", "number", "acted_on", "pointed_at", "purpose_of_size_color"):
        assert most[family] < 0.15
    for family in ("count_kind", "region", "relation", "place", "weather", "color_of_kind", "color_of_purpose"):
        assert most[family] < 0.4
    assert max(most.values()) < 0.85
