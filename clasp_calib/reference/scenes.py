"""A scene from a seed: which things, where, doing what. Everything lies on the grid of 14-pixel patches."""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from clasp_calib.reference import drawing
from clasp_calib.reference.drawing import Box
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    IMAGE_SIZE,
    KINDS,
    PATCH,
    PLACES,
    SIZES,
    TIMES,
    WORDS,
)

SIDE = {"small": 2 * PATCH, "large": 3 * PATCH}
PERSON = (2 * PATCH, 4 * PATCH)
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Thing:
    """An object of the benchmark."""

    kind: str
    color: str
    size: str
    box: Box

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box, in pixels."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


@dataclass(frozen=True)
class Person:
    """Somebody with a shirt, who may act on a thing."""

    color: str
    action: str
    side: int
    box: Box
    target: Thing | None


@dataclass(frozen=True)
class Sign:
    """A plate with a word or a two-digit number."""

    text: str
    font: str
    box: Box


@dataclass(frozen=True)
class Arrow:
    """An arrow whose tip touches a thing."""

    box: Box
    direction: tuple[int, int]
    target: Thing


@dataclass(frozen=True)
class Scene:
    """All there is to know about one picture."""

    seed: int
    place: str
    time: str
    things: tuple[Thing, ...]
    person: Person | None
    sign: Sign | None
    arrow: Arrow | None

    def picture(self) -> Image.Image:
        """The picture, RGB, 336 x 336."""
        image = drawing.draw_background(random.Random(f"background-{self.seed}"), self.place, self.time)
        draw = ImageDraw.Draw(image)
        for thing in self.things:
            drawing.draw_thing(draw, thing.kind, thing.color, thing.box)
        if self.person:
            drawing.draw_person(draw, self.person.color, self.person.box, self.person.action, self.person.side)
        if self.sign:
            drawing.draw_sign(draw, self.sign.text.upper(), self.sign.box, self.sign.font)
        if self.arrow:
            drawing.draw_arrow(draw, self.arrow.box, self.arrow.direction)
        return image


class _Floor:
    """Hands out free places on the patch grid."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.used: list[Box] = []

    def free(self, box: Box) -> bool:
        x, y, width, height = box
        inside = x >= 0 and y >= 0 and x + width <= IMAGE_SIZE and y + height <= IMAGE_SIZE
        return inside and all(x + width <= a or a + w <= x or y + height <= b or b + h <= y for a, b, w, h in self.used)

    def take(self, box: Box) -> bool:
        if not self.free(box):
            return False
        self.used.append(box)
        return True

    def place(self, width: int, height: int, tries: int = 60) -> Box | None:
        for _ in range(tries):
            x = self.rng.randint(0, (IMAGE_SIZE - width) // PATCH) * PATCH
            y = self.rng.randint(0, (IMAGE_SIZE - height) // PATCH) * PATCH
            if self.take((x, y, width, height)):
                return x, y, width, height
        return None


def draw_scene(seed: int) -> Scene:
    """The scene of a seed; the same seed always gives the same scene."""
    rng = random.Random(seed)
    floor = _Floor(rng)
    place, time = rng.choice(PLACES), rng.choice(TIMES)
    kinds = rng.sample(KINDS, rng.randint(4, 7))
    colors = rng.sample(list(COLORS), rng.randint(4, 7))
    things: list[Thing] = []
    person = _person(rng, floor, kinds, colors) if rng.random() < 0.6 else None
    if person and person.target:
        things.append(person.target)
    for _ in range(rng.randint(4, 8)):
        size = rng.choice(SIZES)
        box = floor.place(SIDE[size], SIDE[size])
        if box:
            things.append(Thing(rng.choice(kinds), rng.choice(colors), size, box))
    sign = _sign(rng, floor) if rng.random() < 0.85 else None
    arrow = _arrow(rng, floor, things) if rng.random() < 0.5 else None
    return Scene(seed, place, time, tuple(things), person, sign, arrow)


def _person(rng: random.Random, floor: _Floor, kinds: list[str], colors: list[str]) -> Person | None:
    action, side = rng.choice(ACTIONS), rng.choice((-1, 1))
    kind, color, shirt = rng.choice(kinds), rng.choice(colors), rng.choice(list(COLORS))
    width, height = PERSON
    small = SIDE["small"]
    beside, above = action in ("pushing", "kicking"), action == "holding"
    both = floor.place(width + small * beside, height + small * above)
    if both is None:
        return None
    x, y, _, _ = both
    body = (x + small * (beside and side == -1), y + small * above, width, height)
    if action == "standing":
        return Person(shirt, action, side, body, None)
    if action == "holding":
        corner = (x, y)
    else:
        drop = PATCH if action == "pushing" else height - small
        corner = (x + width if side == 1 else x, y + drop)
    target = Thing(kind, color, "small", (*corner, small, small))
    return Person(shirt, action, side, body, target)


def _sign(rng: random.Random, floor: _Floor) -> Sign | None:
    text = rng.choice(WORDS) if rng.random() < 0.6 else str(rng.randint(10, 99))
    font = rng.choice(drawing.FONTS)
    box = floor.place(PATCH * len(text), PATCH)
    return Sign(text, font, box) if box else None


def _arrow(rng: random.Random, floor: _Floor, things: list[Thing]) -> Arrow | None:
    for target in rng.sample(things, len(things)):
        x, y, width, height = target.box
        for dx, dy in rng.sample(STEPS, len(STEPS)):
            # The arrow lies beside the thing and points back at it.
            if dx:
                box = (x + width if dx == 1 else x - 2 * PATCH, y, 2 * PATCH, PATCH)
            else:
                box = (x, y + height if dy == 1 else y - 2 * PATCH, PATCH, 2 * PATCH)
            if floor.take(box):
                return Arrow(box, (-dx, -dy), target)
    return None
