"""Questions about a scene, with gold answers and gold intents, in several wordings each."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clasp_calib.reference.scenes import Scene, Thing
from clasp_calib.reference.vocabulary import COLORS, IMAGE_SIZE, KINDS, PURPOSES, plural

WORDINGS: Mapping[str, tuple[str, ...]] = {
    "kind_of_color": (
        "What is the {color} object?",
        "What is the {color} thing called?",
        "Name the {color} object.",
        "Which object is {color}?",
        "Can you identify the {color} thing?",
    ),
    "kind_of_size_color": (
        "What is the {size} {color} object?",
        "Name the {size} {color} thing.",
        "Which object is {size} and {color}?",
    ),
    "present": (
        "Is there a {color} {kind}?",
        "Do you see a {color} {kind} anywhere?",
        "Does the picture show a {color} {kind}?",
        "Can you spot a {color} {kind}?",
    ),
    "color_of_kind": (
        "What color is the {kind}?",
        "What is the color of the {kind}?",
        "Which color does the {kind} have?",
        "Tell me the color of the {kind}.",
    ),
    "size_of_kind": (
        "Is the {kind} small or large?",
        "What size is the {kind}?",
        "How big is the {kind}, small or large?",
    ),
    "color_of_shirt": (
        "What color is the shirt of the person?",
        "Which color is the person's shirt?",
        "What is the color of the shirt?",
    ),
    "word": (
        "What does the sign say?",
        "What word is on the sign?",
        "What is written on the sign?",
        "Read the word on the sign.",
        "Which word can you read?",
    ),
    "number": (
        "What number is on the sign?",
        "Which number does the sign show?",
        "What number is written there?",
        "Read the number on the sign.",
    ),
    "place": (
        "What place is this?",
        "Where was this picture taken?",
        "What kind of place do we see?",
        "Which scene does the picture show?",
        "What is the setting of this picture?",
    ),
    "time": (
        "Is it day or night?",
        "Was this taken by day or at night?",
        "What time of day is it, day or night?",
    ),
    "region": (
        "Where is the {kind}?",
        "In which corner of the picture is the {kind}?",
        "Where in the picture can I find the {kind}?",
        "Tell me where the {kind} is.",
    ),
    "relation": (
        "On which side of the {other} is the {kind}?",
        "Where is the {kind} relative to the {other}?",
        "Which way is the {kind} from the {other}?",
    ),
    "count_all": (
        "How many objects are there?",
        "How many things are in the picture?",
        "Count all the objects.",
    ),
    "count_kind": (
        "How many {kinds} are there?",
        "How many {kinds} can you see?",
        "Count the {kinds}.",
        "What is the number of {kinds}?",
    ),
    "count_color": (
        "How many {color} objects are there?",
        "How many things are {color}?",
        "Count the {color} objects.",
    ),
    "action": (
        "What is the person doing?",
        "What action is the person performing?",
        "Which activity is the person doing?",
        "What does the person do?",
    ),
    "acted_on": (
        "What is the person {action}?",
        "Which object is the person {action}?",
        "The person is {action} something, what is it?",
    ),
    "pointed_at": (
        "What is the arrow pointing at?",
        "Which object does the arrow point to?",
        "What does the arrow point at?",
    ),
    "purpose_of_color": (
        "What is the {color} object used for?",
        "What can you do with the {color} object?",
        "What is the purpose of the {color} thing?",
        "What is the {color} thing for?",
    ),
    "color_of_purpose": (
        "What color is the object used for {purpose}?",
        "Which color is the thing meant for {purpose}?",
        "What color is the thing for {purpose}?",
    ),
    "larger": (
        "Is the {kind} larger than the {other}?",
        "Compare the {kind} with the {other}: is it bigger?",
        "Is the {kind} bigger than the {other}?",
    ),
    "more": (
        "Are there more {kinds} than {others}?",
        "Does the picture have more {kinds} than {others}?",
        "Compare {kinds} and {others}: are there more {kinds}?",
    ),
    "same_color": (
        "Do the {kind} and the {other} have the same color?",
        "Are the {kind} and the {other} equal in color?",
        "Compare the {kind} and the {other}: same color?",
    ),
}
"""Family of questions -> its wordings."""

INTENT: Mapping[str, tuple[str, str]] = {
    "kind_of_color": ("object_identification", "object"),
    "kind_of_size_color": ("object_identification", "object"),
    "present": ("object_presence", "object"),
    "color_of_kind": ("attribute_recognition", "attribute"),
    "size_of_kind": ("attribute_recognition", "attribute"),
    "color_of_shirt": ("attribute_recognition", "attribute"),
    "word": ("text_recognition", "text"),
    "number": ("text_recognition", "text"),
    "place": ("scene_understanding", "scene"),
    "time": ("scene_understanding", "scene"),
    "region": ("spatial_relation", "spatial"),
    "relation": ("spatial_relation", "spatial"),
    "count_all": ("counting", "counting"),
    "count_kind": ("counting", "counting"),
    "count_color": ("counting", "counting"),
    "action": ("action_recognition", "action"),
    "acted_on": ("interaction", "action"),
    "pointed_at": ("interaction", "action"),
    "purpose_of_color": ("function_or_intention", "function"),
    "color_of_purpose": ("function_or_intention", "function"),
    "larger": ("other", "default"),
    "more": ("other", "default"),
    "same_color": ("other", "default"),
}
"""Family of questions -> gold intent and its class."""

NEAR = 30
"""Pixels: two things closer than this in both axes have no clear relation."""


@dataclass(frozen=True)
class Question:
    """One question with everything that is known about it."""

    family: str
    text: str
    answer: str

    @property
    def intent(self) -> str:
        """Gold intent."""
        return INTENT[self.family][0]

    @property
    def label(self) -> str:
        """Class of the gold intent."""
        return INTENT[self.family][1]


Ask = Callable[..., Question]


def questions_about(scene: Scene, rng: random.Random) -> list[Question]:
    """Every kind of question that the scene answers without doubt, each in a random wording."""

    def ask(family: str, answer: str, **words: str) -> Question:
        return Question(family, rng.choice(WORDINGS[family]).format(**words), answer)

    by_kind: dict[str, list[Thing]] = defaultdict(list)
    by_color: dict[str, list[Thing]] = defaultdict(list)
    for thing in scene.things:
        by_kind[thing.kind].append(thing)
        by_color[thing.color].append(thing)
    unique = [things[0] for things in by_kind.values() if len(things) == 1]
    return [
        *_about_colors(scene, by_color, ask),
        *_about_kinds(unique, ask),
        *_about_pairs(unique, by_kind, rng, ask),
        *_about_counts(scene, by_kind, by_color, rng, ask),
        *_about_presence(scene, rng, ask),
        *_about_the_rest(scene, ask),
    ]


def balanced(questions: Sequence[Question], count: int, rng: random.Random) -> list[Question]:
    """``count`` questions, classes in turn, families at random within a class; repeats where there are too few."""
    by_class: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        by_class[question.label][question.family].append(question)
    labels = list(by_class)
    rng.shuffle(labels)
    families = (by_class[labels[i % len(labels)]] for i in range(count))
    return [rng.choice(of[rng.choice(list(of))]) for of in families]


def _about_colors(scene: Scene, by_color: Mapping[str, list[Thing]], ask: Ask) -> Iterator[Question]:
    for color, things in by_color.items():
        if len(things) == 1:
            yield ask("kind_of_color", things[0].kind, color=color)
            yield ask("purpose_of_color", PURPOSES[things[0].kind], color=color)
        for thing in things:
            if sum(t.size == thing.size for t in things) == 1:
                yield ask("kind_of_size_color", thing.kind, size=thing.size, color=color)


def _about_kinds(unique: Sequence[Thing], ask: Ask) -> Iterator[Question]:
    for thing in unique:
        x, y = thing.center
        corner = f"{'top' if y < IMAGE_SIZE / 2 else 'bottom'} {'left' if x < IMAGE_SIZE / 2 else 'right'}"
        yield ask("color_of_kind", thing.color, kind=thing.kind)
        yield ask("size_of_kind", thing.size, kind=thing.kind)
        yield ask("color_of_purpose", thing.color, purpose=PURPOSES[thing.kind])
        yield ask("region", corner, kind=thing.kind)


def _about_pairs(
    unique: Sequence[Thing], by_kind: Mapping[str, list[Thing]], rng: random.Random, ask: Ask
) -> Iterator[Question]:
    for _ in range(3):
        if len(unique) < 2:
            break
        a, b = rng.sample(list(unique), 2)
        dx, dy = a.center[0] - b.center[0], a.center[1] - b.center[1]
        horizontal, vertical = ("left" if dx < 0 else "right"), ("above" if dy < 0 else "below")
        if max(abs(dx), abs(dy)) > NEAR:
            answer = horizontal if abs(dx) > abs(dy) else vertical
            yield ask("relation", answer, kind=a.kind, other=b.kind)
        if a.size != b.size:
            yield ask("larger", _yes(a.size == "large"), kind=a.kind, other=b.kind)
        yield ask("same_color", _yes(a.color == b.color), kind=a.kind, other=b.kind)
    if len(by_kind) >= 2:
        a_kind, b_kind = rng.sample(list(by_kind), 2)
        a_count, b_count = len(by_kind[a_kind]), len(by_kind[b_kind])
        if a_count != b_count:
            yield ask("more", _yes(a_count > b_count), kinds=plural(a_kind), others=plural(b_kind))


def _about_counts(
    scene: Scene,
    by_kind: Mapping[str, list[Thing]],
    by_color: Mapping[str, list[Thing]],
    rng: random.Random,
    ask: Ask,
) -> Iterator[Question]:
    yield ask("count_all", str(len(scene.things)))
    kind = rng.choice(list(by_kind)) if by_kind and rng.random() < 0.8 else rng.choice(KINDS)
    yield ask("count_kind", str(len(by_kind.get(kind, []))), kinds=plural(kind))
    color = rng.choice(list(by_color)) if by_color and rng.random() < 0.8 else rng.choice(list(COLORS))
    yield ask("count_color", str(len(by_color.get(color, []))), color=color)


def _about_presence(scene: Scene, rng: random.Random, ask: Ask) -> Iterator[Question]:
    if not scene.things:
        return
    thing = rng.choice(scene.things)
    color, kind = thing.color, thing.kind
    if rng.random() < 0.5:
        # A near miss: the right kind in another colour, or the right colour on another kind.
        color, kind = (rng.choice(list(COLORS)), kind) if rng.random() < 0.5 else (color, rng.choice(KINDS))
    there = any(t.color == color and t.kind == kind for t in scene.things)
    yield ask("present", _yes(there), color=color, kind=kind)


def _about_the_rest(scene: Scene, ask: Ask) -> Iterator[Question]:
    yield ask("place", scene.place)
    yield ask("time", scene.time)
    if scene.sign:
        yield ask("number" if scene.sign.text.isdigit() else "word", scene.sign.text)
    if scene.person:
        yield ask("action", scene.person.action)
        yield ask("color_of_shirt", scene.person.color)
        if scene.person.target:
            yield ask("acted_on", scene.person.target.kind, action=scene.person.action)
    if scene.arrow:
        yield ask("pointed_at", scene.arrow.target.kind)


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"
