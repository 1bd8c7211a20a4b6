"""What every patch of a scene shows: the dense labels that the tower and the oracle decoder are trained with."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clasp_calib.reference.drawing import Box
from clasp_calib.reference.scenes import Scene
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    KINDS,
    PATCH,
    PATTERNS,
    PLACES,
    SIZES,
    TIMES,
    WEATHERS,
)

NOTHING = 0
SIGN, PLATE, PERSON, ARROW, WEATHER_ICON, CLUTTER = range(len(KINDS) + 1, len(KINDS) + 7)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ROLES = ("bystander", "acted on", "pointed at", "both")


class Field(NamedTuple):
    """One property of a patch, as a classification target."""

    name: str
    values: int


FIELDS = (
    Field("kind", CLUTTER + 1),
    Field("color", len(COLORS)),
    Field("size", len(SIZES)),
    Field("center", 2),
    Field("role", len(ROLES)),
    Field("action", len(ACTIONS)),
    Field("place", len(PLACES)),
    Field("time", len(TIMES)),
    Field("weather", len(WEATHERS)),
    Field("pattern", len(PATTERNS)),
    Field("letter", len(LETTERS)),
    Field("tens", 10),
    Field("ones", 10),
)
(KIND, COLOR, SIZE, CENTER, ROLE, ACTION, PLACE, TIME, WEATHER, PATTERN, LETTER, TENS, ONES) = range(len(FIELDS))
FINE = (PATTERN, LETTER, TENS, ONES)
"""Properties that the tower keeps in its shallow layers only."""
IGNORE = -1
_COLOR_NAMES = tuple(COLORS)


def covered(box: Box) -> tuple[slice, slice]:
    """Rows and columns of the patches under a box."""
    x, y, width, height = (v // PATCH for v in box)
    return slice(y, y + height), slice(x, x + width)


def middle(box: Box) -> tuple[int, int]:
    """Row and column of the patch that stands for a thing when things are counted."""
    x, y, width, height = (v // PATCH for v in box)
    return y + height // 2, x + width // 2


def patch_labels(scene: Scene) -> NDArray[np.int16]:
    """Labels of all patches, ``[N, 13]`` in the order of `FIELDS`, row by row; -1 where a property does not apply."""
    columns, rows = (side // PATCH for side in scene.size)
    labels = np.full((rows, columns, len(FIELDS)), IGNORE, np.int16)
    labels[..., KIND] = NOTHING
    labels[..., CENTER] = 0
    labels[..., PLACE] = PLACES.index(scene.place)
    labels[..., TIME] = TIMES.index(scene.time)

    def put(box: Box, values: dict[int, int]) -> None:
        region = labels[covered(box)]
        region[...] = IGNORE
        region[..., CENTER] = 0
        for field, value in values.items():
            region[..., field] = value

    for piece in scene.clutter:
        put(piece.box, {KIND: CLUTTER})
    put(scene.weather_box, {KIND: WEATHER_ICON, WEATHER: WEATHERS.index(scene.weather)})
    if scene.arrow:
        put(scene.arrow.box, {KIND: ARROW})
    acted_on = scene.person.target if scene.person else None
    pointed_at = scene.arrow.target if scene.arrow else None
    for thing in scene.things:
        values = {
            KIND: 1 + KINDS.index(thing.kind),
            COLOR: _COLOR_NAMES.index(thing.color),
            SIZE: SIZES.index(thing.size),
            PATTERN: PATTERNS.index(thing.pattern),
            ROLE: (thing is acted_on) + 2 * (thing is pointed_at),
        }
        put(thing.box, values)
        labels[(*middle(thing.box), CENTER)] = 1
    if scene.person:
        person = scene.person
        put(
            person.box,
            {KIND: PERSON, COLOR: _COLOR_NAMES.index(person.color), ACTION: ACTIONS.index(person.action)},
        )
    if scene.sign:
        x, y, _, _ = scene.sign.box
        for place, letter in enumerate(scene.sign.text):
            put((x + place * PATCH, y, PATCH, PATCH), {KIND: SIGN, LETTER: LETTERS.index(letter)})
    if scene.plate:
        x, y, _, _ = scene.plate.box
        for place, field in enumerate((TENS, ONES)):
            put((x + place * PATCH, y, PATCH, PATCH), {KIND: PLATE, field: int(scene.plate.text[place])})
    return labels.reshape(rows * columns, len(FIELDS))
