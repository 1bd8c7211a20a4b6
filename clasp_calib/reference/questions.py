"""Questions about a scene, with gold answers, gold intents and the places that hold the evidence."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clasp_calib.reference.drawing import Box
from clasp_calib.reference.families import INTENT, TRAIN
from clasp_calib.reference.scenes import Scene, Sign, Thing
from clasp_calib.reference.vocabulary import COLORS, KINDS, PATCH, PURPOSES, plural

SHARE: Mapping[str, float] = {"time": 0.5, "relation": 0.4, "count_color": 0.5, "pattern_of_kind": 2.0}
"""How often a family is asked among those of its class; 1 if not named."""
DIFFICULTIES = ("easy", "medium", "hard")
NEAR = 30
"""Pixels: two things closer than this in both axes have no clear relation."""
MOST = 6
"""Nothing is counted beyond this number."""


@dataclass(frozen=True)
class Question:
    """One question with everything that is known about it.

    ``evidence`` are the boxes one must see to answer; none where the whole picture tells, or where nothing is there.
    """

    family: str
    text: str
    answer: str
    evidence: tuple[Box, ...] = ()

    @property
    def intent(self) -> str:
        """Gold intent."""
        return INTENT[self.family][0]

    @property
    def label(self) -> str:
        """Class of the gold intent."""
        return INTENT[self.family][1]

    @property
    def difficulty(self) -> str:
        """``easy`` needs no more than one place of at least nine patches, ``hard`` several places."""
        areas = [width * height for _, _, width, height in self.evidence]
        if len(areas) > 1:
            return DIFFICULTIES[2]
        return DIFFICULTIES[0] if not areas or areas[0] >= 9 * PATCH * PATCH else DIFFICULTIES[1]


Ask = Callable[..., Question]


def questions_about(scene: Scene, rng: random.Random, forms: Mapping[str, tuple[str, ...]] = TRAIN) -> list[Question]:
    """Every kind of question that the scene answers without doubt, each in a random wording."""

    def ask(family: str, answer: str, evidence: Sequence[Box] = (), **words: str) -> Question:
        text = rng.choice(forms[family]).format(**words)
        return Question(family, text.replace(" a orange", " an orange"), answer, tuple(evidence))

    by_kind: dict[str, list[Thing]] = defaultdict(list)
    by_color: dict[str, list[Thing]] = defaultdict(list)
    by_look: dict[tuple[str, str], list[Thing]] = defaultdict(list)
    for thing in scene.things:
        by_kind[thing.kind].append(thing)
        by_color[thing.color].append(thing)
        by_look[thing.size, thing.color].append(thing)
    unique = [things[0] for things in by_kind.values() if len(things) == 1]
    return [
        *_about_looks([things[0] for things in by_look.values() if len(things) == 1], ask),
        *_about_kinds(unique, scene.size, ask),
        *_about_pairs(unique, rng, ask),
        *_about_counts(by_kind, by_color, rng, ask),
        *_about_presence(scene, rng, ask),
        *_about_text(scene.sign, scene.plate, ask),
        *_about_the_rest(scene, ask),
    ]


def draw_family(families: Sequence[str], rng: random.Random) -> str:
    """One of the families of a class, by `SHARE`."""
    return rng.choices(families, [SHARE.get(family, 1.0) for family in families])[0]


def _about_looks(unique: Sequence[Thing], ask: Ask) -> Iterator[Question]:
    for thing in unique:
        words = {"size": thing.size, "color": thing.color}
        yield ask("kind_of_size_color", thing.kind, [thing.box], **words)
        yield ask("purpose_of_size_color", PURPOSES[thing.kind], [thing.box], **words)


def _about_kinds(unique: Sequence[Thing], size: tuple[int, int], ask: Ask) -> Iterator[Question]:
    for thing in unique:
        x, y = thing.center
        corner = f"{'top' if y < size[1] / 2 else 'bottom'} {'left' if x < size[0] / 2 else 'right'}"
        here = [thing.box]
        yield ask("color_of_kind", thing.color, here, kind=thing.kind)
        yield ask("size_of_kind", thing.size, here, kind=thing.kind)
        yield ask("pattern_of_kind", thing.pattern, here, kind=thing.kind)
        yield ask("color_of_purpose", thing.color, here, purpose=PURPOSES[thing.kind])
        yield ask("region", corner, here, kind=thing.kind)


def _about_pairs(unique: Sequence[Thing], rng: random.Random, ask: Ask) -> Iterator[Question]:
    for _ in range(4):
        if len(unique) < 2:
            break
        a, b = rng.sample(list(unique), 2)
        both, words = [a.box, b.box], {"kind": a.kind, "other": b.kind}
        dx, dy = a.center[0] - b.center[0], a.center[1] - b.center[1]
        horizontal, vertical = ("left" if dx < 0 else "right"), ("above" if dy < 0 else "below")
        if max(abs(dx), abs(dy)) > NEAR:
            yield ask("relation", horizontal if abs(dx) > abs(dy) else vertical, both, **words)
        if a.size != b.size:
            yield ask("larger", _yes(a.size == "large"), both, **words)
        alike = [t for t in unique if t is not a and t.color == a.color]
        if rng.random() < 0.4 and alike:
            b = rng.choice(alike)
        yield ask("same_color", _yes(a.color == b.color), [a.box, b.box], kind=a.kind, other=b.kind)


def _about_counts(
    by_kind: Mapping[str, list[Thing]], by_color: Mapping[str, list[Thing]], rng: random.Random, ask: Ask
) -> Iterator[Question]:
    numbers = sorted({len(things) for things in by_kind.values()})
    # One kind of each number, so that the answer cannot be guessed as 1.
    for number in numbers:
        kind = rng.choice([kind for kind, things in by_kind.items() if len(things) == number])
        if number <= MOST:
            yield ask("count_kind", str(number), [t.box for t in by_kind[kind]], kinds=plural(kind))
    absent = [kind for kind in KINDS if kind not in by_kind]
    if absent:
        yield ask("count_kind", "0", kinds=plural(rng.choice(absent)))
    color = rng.choice(list(COLORS))
    found = by_color.get(color, [])
    if len(found) <= MOST:
        yield ask("count_color", str(len(found)), [t.box for t in found], color=color)
    if len(by_kind) >= 2:
        a, b = rng.sample(list(by_kind), 2)
        if len(by_kind[a]) != len(by_kind[b]):
            evidence = [t.box for kind in (a, b) for t in by_kind[kind]]
            answer = _yes(len(by_kind[a]) > len(by_kind[b]))
            yield ask("more", answer, evidence, kinds=plural(a), others=plural(b))


def _about_presence(scene: Scene, rng: random.Random, ask: Ask) -> Iterator[Question]:
    thing = rng.choice(scene.things)
    color, kind = thing.color, thing.kind
    if rng.random() < 0.6:
        # A near miss: the right kind in another colour, or the right colour on another kind.
        color, kind = (rng.choice(list(COLORS)), kind) if rng.random() < 0.5 else (color, rng.choice(KINDS))
    there = [t.box for t in scene.things if t.color == color and t.kind == kind]
    yield ask("present", _yes(bool(there)), there, color=color, kind=kind)


def _about_text(sign: Sign | None, plate: Sign | None, ask: Ask) -> Iterator[Question]:
    if sign:
        yield ask("word", sign.text, [sign.box])
        x, y, _, _ = sign.box
        letters = [(x + place * PATCH, y, PATCH, PATCH) for place in range(len(sign.text))]
        yield ask("length", str(len(sign.text)), letters)
    if plate:
        yield ask("number", plate.text, [plate.box])


def _about_the_rest(scene: Scene, ask: Ask) -> Iterator[Question]:
    yield ask("place", scene.place)
    yield ask("time", scene.time)
    yield ask("weather", scene.weather, [scene.weather_box])
    if scene.person:
        here = [scene.person.box]
        yield ask("action", scene.person.action, here)
        yield ask("color_of_shirt", scene.person.color, here)
        if scene.person.target:
            yield ask("acted_on", scene.person.target.kind, [scene.person.target.box], action=scene.person.action)
    if scene.arrow:
        yield ask("pointed_at", scene.arrow.target.kind, [scene.arrow.target.box])


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"
