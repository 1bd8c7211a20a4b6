"""How each kind of thing is drawn, with its colour and pattern: the strokes of ``assets/things.json``.

A stroke names a shape of Pillow's ``ImageDraw`` and where it is, x and y in turn, in units of the thing's square.
Shapes are filled with the thing's colour, or with ink or paper where they say so, and outlined; arcs and lines are ink.
"""

from itertools import cycle

import numpy as np
from PIL import Image, ImageDraw

from clasp_calib.reference.drawing import INK, PAPER, Box
from clasp_calib.reference.vocabulary import COLORS, THINGS

_OTHER_FILLS = {"ink": INK, "paper": PAPER}


def draw_thing(image: Image.Image, kind: str, color: str, pattern: str, box: Box) -> None:
    """Draw one thing into its square box; its pattern covers what has its colour."""
    x, y, size, _ = box
    fill = COLORS[color]
    draw = ImageDraw.Draw(image)
    for stroke in THINGS[kind]["strokes"]:
        at = [corner + value * size for corner, value in zip(cycle((x, y)), stroke["at"], strict=False)]
        colours = {"fill": INK}
        if stroke["shape"] not in ("arc", "line"):
            colours = {"fill": _OTHER_FILLS.get(stroke.get("fill", ""), fill), "outline": INK}
        getattr(draw, stroke["shape"])(at, *stroke.get("angles", ()), width=stroke.get("width", 2), **colours)
    if pattern == "plain":
        return
    area = (x, y, x + size, y + size)
    drawn = np.asarray(image.crop(area)).copy()
    rows, columns = np.indices(drawn.shape[:2])
    marked = rows % 4 < 2 if pattern == "striped" else (rows % 5 < 2) & (columns % 5 < 2)
    drawn[marked & (drawn == fill).all(-1)] = INK if sum(fill) > 330 else PAPER
    image.paste(Image.fromarray(drawn), area)
