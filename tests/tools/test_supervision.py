"""Patch labels against a slow reading of the scene's boxes."""

from hypothesis import given, settings, strategies as st

from clasp_calib.reference.drawing import Box
from clasp_calib.reference.scenes import CHALLENGE, ORDINARY, Scene, Style, draw_scene
from clasp_calib.reference.vocabulary import ACTIONS, COLORS, KINDS, PATCH, PATTERNS, PLACES, SIZES, TIMES, WEATHERS
from tools.reference import supervision


def contains(box: Box, x: float, y: float) -> bool:
    return box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


def expected_labels(scene: Scene, column: int, row: int) -> dict[str, int]:
    """What the patch shows, by field; nothing about those that do not apply."""
    x, y = column * PATCH, row * PATCH
    colors = list(COLORS)
    for thing in scene.things:
        if contains(thing.box, x, y):
            touched = bool(scene.person and thing == scene.person.target) + 2 * bool(
                scene.arrow and thing == scene.arrow.target
            )
            middle = (thing.box[0] // PATCH + 1, thing.box[1] // PATCH + 1)
            return {
                "kind": 1 + KINDS.index(thing.kind),
                "color": colors.index(thing.color),
                "size": SIZES.index(thing.size),
                "pattern": PATTERNS.index(thing.pattern),
                "role": touched,
                "center": int((column, row) == middle),
            }
    first = 1 + len(KINDS)
    if scene.sign and contains(scene.sign.box, x, y):
        letter = scene.sign.text[column - scene.sign.box[0] // PATCH]
        return {"kind": first, "center": 0, "letter": ord(letter) - ord("a")}
    if scene.plate and contains(scene.plate.box, x, y):
        place = column - scene.plate.box[0] // PATCH
        return {"kind": first + 1, "center": 0, ("tens", "ones")[place]: int(scene.plate.text[place])}
    if scene.person and contains(scene.person.box, x, y):
        shown = {"color": colors.index(scene.person.color), "action": ACTIONS.index(scene.person.action)}
        return {"kind": first + 2, "center": 0, **shown}
    if scene.arrow and contains(scene.arrow.box, x, y):
        return {"kind": first + 3, "center": 0}
    if contains(scene.weather_box, x, y):
        return {"kind": first + 4, "center": 0, "weather": WEATHERS.index(scene.weather)}
    if any(contains(piece.box, x, y) for piece in scene.clutter):
        return {"kind": first + 5, "center": 0}
    return {"kind": 0, "center": 0, "place": PLACES.index(scene.place), "time": TIMES.index(scene.time)}


@given(st.integers(0, 2**40), st.sampled_from((ORDINARY, CHALLENGE)))
@settings(max_examples=20, deadline=None)
def test_patch_labels_say_what_the_boxes_hold(seed: int, style: Style) -> None:
    scene = draw_scene(seed, style)
    labels = supervision.patch_labels(scene).reshape(24, 24, -1)
    for row in range(24):
        for column in range(24):
            wanted = expected_labels(scene, column, row)
            read = {f.name: int(v) for f, v in zip(supervision.FIELDS, labels[row, column], strict=True) if v >= 0}
            assert read == wanted, (row, column)
