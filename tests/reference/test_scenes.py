import random
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import ImageFont

from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import CLASSES
from clasp_calib.reference.drawing import FONTS, Box, _font
from clasp_calib.reference.families import HELD_OUT, INTENT, TRAIN
from clasp_calib.reference.questions import NEAR, Question, questions_about
from clasp_calib.reference.scenes import CHALLENGE, ORDINARY, Scene, Style, Thing, draw_scene
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    IMAGE_SIZE,
    KINDS,
    PATCH,
    PLACES,
    PURPOSES,
    SIZES,
    SQUARE,
    TIMES,
    WEATHERS,
    WORDS,
    plural,
)
from clasp_calib.router_labeling.taxonomy import load_taxonomy

seeds = st.integers(0, 2**40)
styles = st.sampled_from((ORDINARY, CHALLENGE))
sides = st.integers(12, 32).map(lambda patches: patches * PATCH)
sizes = st.just(SQUARE) | st.tuples(sides, sides)


def boxes(scene: Scene) -> list[Box]:
    found = [scene.weather_box, *(thing.box for thing in scene.things), *(piece.box for piece in scene.clutter)]
    return found + [part.box for part in (scene.person, scene.sign, scene.plate, scene.arrow) if part]


def contains(box: Box, x: float, y: float) -> bool:
    return box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


def patches(box: Box) -> int:
    return box[2] // PATCH * (box[3] // PATCH)


@given(seeds, styles, sizes)
@settings(max_examples=60, deadline=None)
def test_everything_lies_on_the_grid_and_nothing_overlaps(seed: int, style: Style, size: tuple[int, int]) -> None:
    scene = draw_scene(seed, style, size)
    assert scene.size == scene.picture().size == size
    for x, y, width, height in boxes(scene):
        assert all(v % PATCH == 0 for v in (x, y, width, height))
        assert min(x, y) >= 0
        assert x + width <= size[0]
        assert y + height <= size[1]
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes(scene), 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    for thing in scene.things:
        for corner, length, offset, side in zip(thing.box[:2], thing.box[2:], thing.shift, size, strict=True):
            assert 0 <= offset <= style.shift
            assert corner + length + offset <= side


@pytest.mark.parametrize("size", [(340, 336), (336, 154), (0, 336), (-336, 336)])
def test_a_picture_of_no_whole_patches_or_too_small_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"{size[0]} x {size[1]} pixels; expected multiples of 14, from 168 on"):
        draw_scene(0, size=size)


def test_a_larger_picture_holds_more_in_proportion_and_its_regions_are_its_own() -> None:
    wide = [draw_scene(seed, size=(48 * PATCH, 24 * PATCH)) for seed in range(20)]
    assert 1.8 < sum(len(s.things) for s in wide) / sum(len(draw_scene(s).things) for s in range(20)) < 2.2
    for scene in wide:
        for question in questions_about(scene, random.Random(0)):
            if question.family == "region":
                x, y, width, height = question.evidence[0]
                left, top = x + width / 2 < 24 * PATCH, y + height / 2 < 12 * PATCH
                assert question.answer == f"{'top' if top else 'bottom'} {'left' if left else 'right'}"


def test_a_seed_gives_one_scene_and_one_picture() -> None:
    for style in (ORDINARY, CHALLENGE):
        assert draw_scene(5, style) == draw_scene(5, style)
        first, again = (np.asarray(draw_scene(5, style).picture()) for _ in range(2))
        assert first.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert np.array_equal(first, again)
    assert draw_scene(5) != draw_scene(6)
    assert draw_scene(5) != draw_scene(5, CHALLENGE)


def foreground(scene: Scene) -> int:
    return sum(patches(box) for box in boxes(scene))


def test_pictures_are_busy_and_those_of_the_challenge_busier_and_smaller_written() -> None:
    ordinary, challenge = ([draw_scene(seed, style) for seed in range(150)] for style in (ORDINARY, CHALLENGE))
    assert min(len(scene.things) for scene in ordinary) >= 20
    assert min(len(scene.things) for scene in challenge) > max(len(scene.things) for scene in ordinary)
    shown, fuller = (np.mean([foreground(scene) for scene in scenes]) for scenes in (ordinary, challenge))
    assert 150 < shown < 250
    assert fuller > shown + 30
    sizes, smaller = (
        {sign.size for scene in scenes for sign in (scene.sign, scene.plate) if sign}
        for scenes in (ordinary, challenge)
    )
    assert len(sizes) == len(smaller) == 3
    assert max(smaller) < min(sizes)
    assert len({sign.font for scene in ordinary for sign in (scene.sign, scene.plate) if sign}) > 2
    for part in ("person", "sign", "plate", "arrow"):
        assert 0.7 < np.mean([getattr(scene, part) is not None for scene in ordinary]) < 1
    for values, names in (("place", PLACES), ("time", TIMES), ("weather", WEATHERS)):
        assert {getattr(scene, values) for scene in ordinary} == set(names)


@pytest.mark.parametrize("seed", range(4))
def test_a_thing_is_drawn_in_its_place_and_colour(seed: int) -> None:
    scene = draw_scene(seed)
    whole = np.asarray(scene.picture()).astype(int)
    for thing in random.Random(seed).sample(scene.things, 6):
        without = replace(scene, things=tuple(t for t in scene.things if t is not thing))
        changed = (np.asarray(without.picture()) != whole).any(-1)
        x, y, width, height = thing.box
        left, top = x + thing.shift[0], y + thing.shift[1]
        inside = np.zeros_like(changed)
        inside[max(top - 2, 0) : top + height + 3, max(left - 2, 0) : left + width + 3] = True
        assert changed.sum() > 0.1 * width * height
        assert not changed[~inside].any()
        shown = whole[y : y + height, x : x + width]
        assert (shown == COLORS[thing.color]).all(-1).mean() > 0.04


def test_every_letter_of_a_sign_is_written_on_its_patch() -> None:
    scenes = [scene for scene in (draw_scene(seed, CHALLENGE) for seed in range(12)) if scene.sign]
    for scene in scenes:
        assert scene.sign
        picture = np.asarray(scene.picture()).astype(int).sum(-1)
        x, y, _, _ = scene.sign.box
        for place in range(len(scene.sign.text)):
            patch = picture[y : y + PATCH, x + place * PATCH : x + (place + 1) * PATCH]
            assert (patch < 300).sum() > 5
            assert (patch > 600).sum() > 60


def only(things: list[Thing]) -> Thing:
    (thing,) = things
    return thing


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def after(pattern: str, text: str) -> str:
    """The word that follows: the thing that another is compared with, or seen from."""
    found = re.search(pattern + r" (\w+)", text.lower())
    assert found, text
    return found[1]


def yes(condition: bool) -> str:
    return "yes" if condition else "no"


def slow_reading(scene: Scene, question: Question) -> tuple[str, list[Box]]:
    """Answer and evidence from the scene and the words of the question alone."""
    family, text, words = question.family, question.text, words_of(question.text)
    kinds = [word for word in words if word in KINDS]
    colors = [word for word in words if word in COLORS]
    if family in ("kind_of_size_color", "purpose_of_size_color"):
        size = only_word(words, SIZES)
        thing = only([t for t in scene.things if (t.size, t.color) == (size, colors[0])])
        return (thing.kind if family == "kind_of_size_color" else PURPOSES[thing.kind]), [thing.box]
    if family in ("color_of_kind", "size_of_kind", "pattern_of_kind", "region"):
        thing = only([t for t in scene.things if t.kind == kinds[0]])
        x, y = thing.box[0] + thing.box[2] / 2, thing.box[1] + thing.box[3] / 2
        corner = ("top" if y < 168 else "bottom") + (" left" if x < 168 else " right")
        answers = {"color_of_kind": thing.color, "size_of_kind": thing.size, "pattern_of_kind": thing.pattern}
        return answers.get(family, corner), [thing.box]
    if family == "color_of_purpose":
        thing = only([t for t in scene.things if PURPOSES[t.kind] in words])
        return thing.color, [thing.box]
    if family == "present":
        found = [t for t in scene.things if (t.kind, t.color) == (kinds[0], colors[0])]
        return yes(bool(found)), [t.box for t in found]
    if family == "count_color":
        found = [t for t in scene.things if t.color == colors[0]]
        return str(len(found)), [t.box for t in found]
    if family in ("count_kind", "more"):
        named = [kind for word in words for kind in KINDS if plural(kind) == word]
        found = {kind: [t.box for t in scene.things if t.kind == kind] for kind in named}
        if family == "count_kind":
            return str(len(found[named[0]])), found[named[0]]
        first = after("more", text)
        (many,) = (boxes for kind, boxes in found.items() if plural(kind) == first)
        (few,) = (boxes for kind, boxes in found.items() if plural(kind) != first)
        assert len(many) != len(few)
        return yes(len(many) > len(few)), many + few
    if family in ("relation", "larger", "same_color"):
        return about_two(scene, question, kinds)
    return about_the_rest(scene, family, words)


def only_word(words: list[str], known: tuple[str, ...]) -> str:
    (word,) = (word for word in words if word in known)
    return word


def about_two(scene: Scene, question: Question, kinds: list[str]) -> tuple[str, list[Box]]:
    a, b = (only([t for t in scene.things if t.kind == kind]) for kind in dict.fromkeys(kinds))
    both = [a.box, b.box]
    if question.family == "same_color":
        return yes(a.color == b.color), both
    ways = {
        "relation": "(?:from|relative to|starting at|are at|side of|below) the",
        "larger": "(?:than|with|next to) the",
    }
    if after(ways[question.family], question.text) == a.kind:
        a, b = b, a
    if question.family == "larger":
        assert a.size != b.size
        return yes(a.size == "large"), both
    right, down = ((a.box[i] + a.box[i + 2] / 2) - (b.box[i] + b.box[i + 2] / 2) for i in range(2))
    assert max(abs(right), abs(down)) > NEAR
    if abs(right) > abs(down):
        return ("right" if right > 0 else "left"), both
    return ("below" if down > 0 else "above"), both


def about_the_rest(scene: Scene, family: str, words: list[str]) -> tuple[str, list[Box]]:
    if family in ("place", "time"):
        return getattr(scene, family), []
    if family == "weather":
        return scene.weather, [scene.weather_box]
    if family == "pointed_at":
        assert scene.arrow
        (x, y, width, height), (dx, dy) = scene.arrow.box, scene.arrow.direction
        tip = x + width / 2 + dx * (width / 2 + 1), y + height / 2 + dy * (height / 2 + 1)
        thing = only([t for t in scene.things if contains(t.box, *tip)])
        return thing.kind, [thing.box]
    if family == "length":
        assert scene.sign
        grid = [(x, y) for x in range(0, IMAGE_SIZE, PATCH) for y in range(0, IMAGE_SIZE, PATCH)]
        return str(len(scene.sign.text)), [(x, y, PATCH, PATCH) for x, y in grid if contains(scene.sign.box, x, y)]
    if family in ("word", "number"):
        sign = scene.sign if family == "word" else scene.plate
        assert sign
        return sign.text, [sign.box]
    assert scene.person
    x, y, width, _ = scene.person.box
    if family == "acted_on":
        assert only_word(words, ACTIONS) == scene.person.action
        beside = (x + width if scene.person.side == 1 else x - 1, y + 35)
        hand = (x + width / 2, y - 1) if scene.person.action == "holding" else beside
        thing = only([t for t in scene.things if contains(t.box, *hand)])
        return thing.kind, [thing.box]
    return {"action": scene.person.action, "color_of_shirt": scene.person.color}[family], [scene.person.box]


@pytest.mark.parametrize("forms", [TRAIN, HELD_OUT], ids=["train", "held-out"])
@given(seed=seeds, style=styles)
@settings(max_examples=80, deadline=None)
def test_answers_and_evidence_agree_with_a_slow_reading_of_the_scene(
    forms: Mapping[str, tuple[str, ...]], seed: int, style: Style
) -> None:
    scene = draw_scene(seed, style)
    texts: dict[str, str] = {}
    for question in questions_about(scene, random.Random(seed), forms):
        answer, evidence = slow_reading(scene, question)
        assert question.answer == answer, question
        assert sorted(question.evidence) == sorted(evidence), question
        assert texts.setdefault(question.text, question.answer) == question.answer
        assert "{" not in question.text
        assert " a orange" not in question.text
        sizes = [patches(box) for box in evidence]
        one = "easy" if not sizes or sizes[0] >= 9 else "medium"
        assert question.difficulty == ("hard" if len(sizes) > 1 else one)


def test_every_family_is_asked_and_has_a_known_intent_of_its_class() -> None:
    taxonomy = load_taxonomy()
    assert set(INTENT) == set(TRAIN) == set(HELD_OUT)
    for intent, label in INTENT.values():
        assert taxonomy.class_of(intent) == label
    assert {label for _, label in INTENT.values()} == set(CLASSES)
    asked = {q.family for seed in range(20) for q in questions_about(draw_scene(seed), random.Random(seed))}
    assert asked == set(INTENT)


def plainly(form: str) -> str:
    return " ".join(re.findall(r"\{?\w+\}?", form.lower()))


@pytest.mark.parametrize("family", INTENT)
def test_wordings_of_a_family_ask_the_same_and_none_is_in_both_sets(family: str) -> None:
    named = {tuple(sorted(set(re.findall(r"\{(\w+)\}", form)))) for form in (*TRAIN[family], *HELD_OUT[family])}
    assert len(named) == 1
    trained, held_out = ({plainly(form) for form in forms[family]} for forms in (TRAIN, HELD_OUT))
    assert not trained & held_out
    assert len(trained) == len(TRAIN[family]) >= 25
    assert len(held_out) == len(HELD_OUT[family]) >= 3


@pytest.mark.parametrize("label", CLASSES)
def test_a_class_is_worded_in_many_ways(label: str) -> None:
    families = [family for family, (_, of) in INTENT.items() if of == label]
    assert len({plainly(form) for family in families for form in TRAIN[family]}) >= 15


def test_names_do_not_collide() -> None:
    assert len(set(PURPOSES.values())) == len(KINDS)
    assert len({plural(kind) for kind in KINDS}) == len(KINDS)
    assert len({"".join(sorted(word)) for word in WORDS}) == len(WORDS)


def test_letters_are_laid_out_alike_with_and_without_fribidi() -> None:
    assert {_font(name, 12).layout_engine for name in FONTS} == {ImageFont.Layout.BASIC}
