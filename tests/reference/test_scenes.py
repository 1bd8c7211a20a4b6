import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clasp_calib.common.samples import CLASSES
from clasp_calib.reference import supervision
from clasp_calib.reference.questions import INTENT, WORDINGS, balanced, questions_about
from clasp_calib.reference.scenes import Scene, draw_scene
from clasp_calib.reference.vocabulary import COLORS, IMAGE_SIZE, KINDS, PATCH, PURPOSES, plural
from clasp_calib.router_labeling.taxonomy import load_taxonomy

seeds = st.integers(0, 2**40)


def boxes(scene: Scene) -> list[tuple[int, int, int, int]]:
    found = [thing.box for thing in scene.things]
    found += [part.box for part in (scene.person, scene.sign, scene.arrow) if part]
    return found


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_everything_lies_on_the_grid_and_nothing_overlaps(seed: int) -> None:
    scene = draw_scene(seed)
    for x, y, width, height in boxes(scene):
        assert all(v % PATCH == 0 for v in (x, y, width, height))
        assert min(x, y) >= 0
        assert max(x + width, y + height) <= IMAGE_SIZE
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes(scene), 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_a_seed_gives_one_scene_and_one_picture() -> None:
    assert draw_scene(5) == draw_scene(5)
    assert draw_scene(5) != draw_scene(6)
    assert np.array_equal(np.asarray(draw_scene(5).picture()), np.asarray(draw_scene(5).picture()))


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_patch_labels_say_what_the_boxes_hold(seed: int) -> None:
    scene = draw_scene(seed)
    labels = supervision.patch_labels(scene).reshape(24, 24, -1)
    covered = np.zeros((24, 24), bool)
    for x, y, width, height in boxes(scene):
        covered[y // PATCH : (y + height) // PATCH, x // PATCH : (x + width) // PATCH] = True
    assert np.array_equal(labels[..., supervision.KIND] > 0, covered)
    for thing in scene.things:
        x, y = (int(v) // PATCH for v in thing.center)
        assert labels[y, x, supervision.KIND] == 1 + KINDS.index(thing.kind)
        assert labels[y, x, supervision.COLOR] == list(COLORS).index(thing.color)
    if scene.sign and scene.sign.text.isdigit():
        row, column = scene.sign.box[1] // PATCH, scene.sign.box[0] // PATCH
        read = labels[row, column, supervision.TENS], labels[row, column + 1, supervision.ONES]
        assert "".join(map(str, read)) == scene.sign.text


def slow_answer(scene: Scene, family: str, text: str) -> str | None:
    """Answers from the scene alone, by looking the words of the question up; ``None`` where it has no opinion."""
    words = text.lower().replace("?", "").replace(",", "").replace(".", "").replace(":", "").split()
    kinds = [w for w in words if w in KINDS]
    plurals = [k for w in words for k in KINDS if plural(k) == w]
    colors = [w for w in words if w in COLORS]
    if family == "count_all":
        return str(len(scene.things))
    if family == "count_kind":
        return str(sum(t.kind == plurals[0] for t in scene.things))
    if family == "count_color":
        return str(sum(t.color == colors[0] for t in scene.things))
    if family == "present":
        return "yes" if any((t.kind, t.color) == (kinds[0], colors[0]) for t in scene.things) else "no"
    if family == "color_of_kind":
        (only,) = {t.color for t in scene.things if t.kind == kinds[0]}
        return only
    if family == "kind_of_color":
        (only,) = {t.kind for t in scene.things if t.color == colors[0]}
        return only
    if family == "color_of_purpose":
        (only,) = {t.color for t in scene.things if PURPOSES[t.kind] in words}
        return only
    if family == "purpose_of_color":
        (only,) = {PURPOSES[t.kind] for t in scene.things if t.color == colors[0]}
        return only
    if family in ("word", "number"):
        assert scene.sign
        return scene.sign.text
    if family == "more":
        first, second = (sum(t.kind == k for t in scene.things) for k in plurals[:2])
        return "yes" if first > second else "no"
    return None


@given(seeds)
@settings(max_examples=80, deadline=None)
def test_gold_answers_agree_with_a_slow_reading_of_the_scene(seed: int) -> None:
    scene = draw_scene(seed)
    questions = questions_about(scene, random.Random(seed))
    for question in questions:
        expected = slow_answer(scene, question.family, question.text)
        assert expected is None or question.answer == expected, question
    texts = {}
    for question in questions:
        assert texts.setdefault(question.text, question.answer) == question.answer


def test_every_family_has_a_known_intent_of_its_class() -> None:
    taxonomy = load_taxonomy()
    assert set(INTENT) == set(WORDINGS)
    for intent, label in INTENT.values():
        assert taxonomy.class_of(intent) == label
    assert {label for _, label in INTENT.values()} == set(CLASSES)


def test_balanced_takes_classes_in_turn() -> None:
    scene = next(s for s in map(draw_scene, range(100)) if s.person and s.sign and s.person.target)
    questions = questions_about(scene, random.Random(0))
    labels = {q.label for q in questions}
    drawn = [q.label for q in balanced(questions, 2 * len(labels), random.Random(0))]
    assert sorted(drawn) == sorted([*labels, *labels])


@pytest.mark.parametrize("family", WORDINGS)
def test_families_are_worded_in_more_than_one_way(family: str) -> None:
    assert len(set(WORDINGS[family])) == len(WORDINGS[family]) >= 3
