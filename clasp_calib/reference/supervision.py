"""What every patch of a scene shows: the dense labels that the tower and the oracle decoder are trained with."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clasp_calib.reference.drawing import Box
from clasp_calib.reference.scenes import Scene
from clasp_calib.reference.vocabulary import (
    ACTIONS,
    COLORS,
    GRID,
    KINDS,
    PATCH,
    PLACES,
    SIZES,
    TIMES,
    WORDS,
)

NOTHING, SIGN, PERSON, ARROW = 0, len(KINDS) + 1, len(KINDS) + 2, len(KINDS) + 3


class Field(NamedTuple):
    """One property of a patch, as a classification target."""

    name: str
    values: int


FIELDS = (
    Field("kind", ARROW + 1),
    Field("color", len(COLORS)),
    Field("size", len(SIZES)),
    Field("center", 2),
    Field("word", len(WORDS)),
    Field("tens", 10),
    Field("ones", 10),
    Field("action", len(ACTIONS)),
)
KIND, COLOR, SIZE, CENTER, WORD, TENS, ONES, ACTION = range(len(FIELDS))
IGNORE = -1
_COLOR_NAMES = tuple(COLORS)


def patch_labels(scene: Scene) -> NDArray[np.int16]:
    """Labels of all patches, ``[576, 8]`` in the order of `FIELDS`; -1 where a property does not apply."""
    labels = np.full((GRID, GRID, len(FIELDS)), IGNORE, np.int16)
    labels[..., KIND] = NOTHING
    labels[..., CENTER] = 0

    def put(box: Box, values: dict[int, int], center: bool = True) -> None:
        x, y, width, height = (v // PATCH for v in box)
        region = labels[y : y + height, x : x + width]
        region[...] = IGNORE
        region[..., CENTER] = 0
        for field, value in values.items():
            region[..., field] = value
        if center:
            region[height // 2, width // 2, CENTER] = 1

    if scene.arrow:
        put(scene.arrow.box, {KIND: ARROW}, center=False)
    for thing in scene.things:
        put(
            thing.box,
            {
                KIND: 1 + KINDS.index(thing.kind),
                COLOR: _COLOR_NAMES.index(thing.color),
                SIZE: SIZES.index(thing.size),
            },
        )
    if scene.person:
        person = scene.person
        put(
            person.box,
            {
                KIND: PERSON,
                COLOR: _COLOR_NAMES.index(person.color),
                ACTION: ACTIONS.index(person.action),
            },
        )
    if scene.sign:
        text, (x, y, width, height) = scene.sign.text, scene.sign.box
        if text.isdigit():
            # Each patch answers for its own digit only: asked for both, the tower smears one over the other.
            put((x, y, PATCH, height), {KIND: SIGN, TENS: int(text[0])})
            put((x + PATCH, y, PATCH, height), {KIND: SIGN, ONES: int(text[1])}, center=False)
        else:
            put((x, y, width, height), {KIND: SIGN, WORD: WORDS.index(text)})
    return labels.reshape(GRID * GRID, len(FIELDS))


def scene_labels(scene: Scene) -> tuple[int, int]:
    """Place and time of a scene, as indices."""
    return PLACES.index(scene.place), TIMES.index(scene.time)
