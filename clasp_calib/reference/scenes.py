"""A scene from a seed: which things, where, doing what.

Everything has its place on the grid of 14-pixel patches; things are drawn up to two pixels off it.
"""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from clasp_calib.common.errors import InputError
from clasp_calib.reference import drawing
from clasp_calib.reference.drawing import Box, Color
from clasp_calib.reference.sprites import draw_thing
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    IMAGE_SIZE,
    KINDS,
    PATCH,
    PATTERNS,
    PLACES,
    SQUARE,
    TIMES,
    WEATHERS,
    WORDS,
)

SIDE = {"small": 2 * PATCH, "large": 3 * PATCH}
SMALLEST = 12 * PATCH
"""Pixels that a side of a picture has at least."""
PERSON = (2 * PATCH, 4 * PATCH)
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Style:
    """How much a picture shows, and how small it is written; ranges are inclusive."""

    things: tuple[int, int]
    clutter: tuple[int, int]
    font_sizes: tuple[int, ...]
    shift: int
    """Pixels that a thing may be off the grid."""


ORDINARY = Style(things=(20, 24), clutter=(14, 26), font_sizes=(12, 13, 14), shift=2)
CHALLENGE = Style(things=(26, 31), clutter=(26, 36), font_sizes=(9, 10, 11), shift=4)


@dataclass(frozen=True)
class Thing:
    """An object of the benchmark."""

    kind: str
    color: str
    size: str
    pattern: str
    box: Box
    shift: tuple[int, int]

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
    """A sign with a word, or a plate with a two-digit number."""

    text: str
    font: str
    size: int
    box: Box


@dataclass(frozen=True)
class Arrow:
    """An arrow whose tip touches a thing."""

    box: Box
    direction: tuple[int, int]
    target: Thing


@dataclass(frozen=True)
class Clutter:
    """Something that no question is about."""

    shape: int
    shade: Color
    box: Box


@dataclass(frozen=True)
class Scene:
    """All there is to know about one picture."""

    seed: int
    place: str
    time: str
    weather: str
    weather_box: Box
    things: tuple[Thing, ...]
    person: Person | None
    sign: Sign | None
    plate: Sign | None
    arrow: Arrow | None
    clutter: tuple[Clutter, ...]
    size: tuple[int, int] = SQUARE
    """Width and height in pixels, multiples of a patch."""

    def picture(self) -> Image.Image:
        """The picture, RGB, of the scene's size."""
        image = drawing.draw_background(random.Random(f"background-{self.seed}"), self.place, self.time, self.size)
        draw = ImageDraw.Draw(image)
        for piece in self.clutter:
            drawing.draw_clutter(draw, piece.shape, piece.shade, piece.box)
        drawing.draw_weather(draw, self.weather, self.weather_box)
        for thing in self.things:
            x, y, width, height = thing.box
            box = (x + thing.shift[0], y + thing.shift[1], width, height)
            draw_thing(image, thing.kind, thing.color, thing.pattern, box)
        if self.person:
            drawing.draw_person(draw, self.person.color, self.person.box, self.person.action, self.person.side)
        for sign, paper in ((self.sign, drawing.PAPER), (self.plate, drawing.PLATE)):
            if sign:
                drawing.draw_sign(draw, sign.text.upper(), sign.box, sign.font, sign.size, paper)
        if self.arrow:
            drawing.draw_arrow(draw, self.arrow.box, self.arrow.direction)
        return image


class _Floor:
    """Hands out free places on the patch grid."""

    def __init__(self, rng: random.Random, size: tuple[int, int]):
        self.rng = rng
        self.size = size
        self.used: set[tuple[int, int]] = set()

    def take(self, box: Box) -> bool:
        x, y, width, height = box
        if x < 0 or y < 0 or x + width > self.size[0] or y + height > self.size[1]:
            return False
        cells = {(a, b) for a in range(x, x + width, PATCH) for b in range(y, y + height, PATCH)}
        if cells & self.used:
            return False
        self.used |= cells
        return True

    def place(self, width: int, height: int, lowest: int | None = None, tries: int = 60) -> Box | None:
        """A free box whose top is above ``lowest`` pixels."""
        right, bottom = self.size[0] - width, self.size[1] - height
        for _ in range(tries):
            x = self.rng.randint(0, right // PATCH) * PATCH
            y = self.rng.randint(0, min(bottom, bottom if lowest is None else lowest) // PATCH) * PATCH
            if self.take((x, y, width, height)):
                return x, y, width, height
        return None


def draw_scene(seed: int, style: Style = ORDINARY, size: tuple[int, int] = SQUARE) -> Scene:
    """The scene of a seed; the same seed, style and size always give the same scene.

    Args:
        seed: of everything that is drawn.
        style: how full the picture is; of another size it has things and clutter in proportion to its area.
        size: width and height in pixels, multiples of `PATCH` that leave room for a person, a sign and an arrow.

    Raises:
        InputError: the size is no multiple of a patch, or under twelve patches in a direction.
    """
    if any(side % PATCH or side < SMALLEST for side in size):
        raise InputError(
            f"a picture of {size[0]} x {size[1]} pixels; expected multiples of {PATCH}, from {SMALLEST} on"
        )
    area = size[0] * size[1] / IMAGE_SIZE**2
    rng = random.Random(seed)
    floor = _Floor(rng, size)
    place, time, weather = rng.choice(PLACES), rng.choice(TIMES), rng.choice(WEATHERS)
    icon = floor.place(2 * PATCH, 2 * PATCH, lowest=6 * PATCH)
    assert icon, "the first box always finds a place"
    things: list[Thing] = []
    person = _person(rng, floor) if rng.random() < 0.9 else None
    if person and person.target:
        things.append(person.target)
    sign = _sign(rng, floor, style, rng.choice(WORDS)) if rng.random() < 0.9 else None
    plate = _sign(rng, floor, style, str(rng.randint(10, 99))) if rng.random() < 0.9 else None
    # Some kinds are left out and some come often, so that counts and single things both occur.
    kinds = rng.sample(KINDS, rng.randint(12, 16))
    often = rng.sample(kinds, 3)
    for _ in range(_drawn(rng, style.things, area) - len(things)):
        named = "small" if rng.random() < 0.6 else "large"
        if box := floor.place(SIDE[named], SIDE[named]):
            kind = rng.choice(often) if rng.random() < 0.35 else rng.choice(kinds)
            things.append(_thing(rng, kind, named, box, style.shift, size))
    arrow = _arrow(rng, floor, things) if rng.random() < 0.8 else None
    clutter = []
    for _ in range(_drawn(rng, style.clutter, area)):
        width, height = rng.choice(((1, 1), (1, 1), (2, 1), (1, 2), (2, 2)))
        if box := floor.place(width * PATCH, height * PATCH, tries=20):
            shade = (rng.randint(60, 190), rng.randint(60, 170), rng.randint(50, 150))
            clutter.append(Clutter(rng.randrange(4), shade, box))
    return Scene(seed, place, time, weather, icon, tuple(things), person, sign, plate, arrow, tuple(clutter), size)


def _drawn(rng: random.Random, many: tuple[int, int], area: float) -> int:
    return rng.randint(*(round(count * area) for count in many))


def _thing(rng: random.Random, kind: str, size: str, box: Box, shift: int, picture: tuple[int, int] = SQUARE) -> Thing:
    limit = min(shift, picture[0] - box[0] - box[2]), min(shift, picture[1] - box[1] - box[3])
    offset = rng.randint(0, limit[0]), rng.randint(0, limit[1])
    return Thing(kind, rng.choice(list(COLORS)), size, rng.choice(PATTERNS), box, offset)


def _person(rng: random.Random, floor: _Floor) -> Person | None:
    action, side = rng.choice(ACTIONS), rng.choice((-1, 1))
    shirt = rng.choice(list(COLORS))
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
    target = _thing(rng, rng.choice(KINDS), "small", (*corner, small, small), 0, floor.size)
    return Person(shirt, action, side, body, target)


def _sign(rng: random.Random, floor: _Floor, style: Style, text: str) -> Sign | None:
    font, size = rng.choice(drawing.FONTS), rng.choice(style.font_sizes)
    box = floor.place(PATCH * len(text), PATCH)
    return Sign(text, font, size, box) if box else None


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
