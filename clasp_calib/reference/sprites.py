"""The kinds of things and how each is drawn, with its colour and pattern."""

import math

import numpy as np
from PIL import Image, ImageDraw

from clasp_calib.reference.drawing import INK, PAPER, Box, Color
from clasp_calib.reference.vocabulary import COLORS

Points = tuple[tuple[float, float], ...]
_STAR: Points = tuple(
    (
        0.5 + (0.5 if i % 2 == 0 else 0.2) * math.sin(i * math.pi / 5),
        0.5 - (0.5 if i % 2 == 0 else 0.2) * math.cos(i * math.pi / 5),
    )
    for i in range(10)
)
_HEART: Points = (
    (0.5, 0.97),
    (0.03, 0.45),
    (0.03, 0.22),
    (0.2, 0.06),
    (0.38, 0.08),
    (0.5, 0.25),
    (0.62, 0.08),
    (0.8, 0.06),
    (0.97, 0.22),
    (0.97, 0.45),
)
_CAR: Points = (
    (0, 0.75),
    (0, 0.5),
    (0.2, 0.45),
    (0.32, 0.22),
    (0.7, 0.22),
    (0.82, 0.45),
    (1, 0.5),
    (1, 0.75),
)
_CUP: Points = ((0.08, 0.15), (0.68, 0.15), (0.6, 0.92), (0.16, 0.92))


class Pen:
    """Draws in units of a square of side ``size`` whose corner is ``(x, y)``."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: int, y: int, size: int, fill: Color):
        self.draw, self.x, self.y, self.size, self.fill = draw, x, y, size, fill

    def _box(self, a: float, b: float, c: float, d: float) -> list[float]:
        s = self.size
        return [self.x + a * s, self.y + b * s, self.x + c * s, self.y + d * s]

    def polygon(self, points: Points, fill: Color | None = None) -> None:
        """Fill a polygon."""
        xy = [(self.x + a * self.size, self.y + b * self.size) for a, b in points]
        self.draw.polygon(xy, fill=fill or self.fill, outline=INK, width=2)

    def rectangle(self, a: float, b: float, c: float, d: float, fill: Color | None = None) -> None:
        """Fill a rectangle between two corners."""
        self.draw.rectangle(self._box(a, b, c, d), fill=fill or self.fill, outline=INK, width=2)

    def ellipse(self, a: float, b: float, c: float, d: float, fill: Color | None = None) -> None:
        """Fill an ellipse between two corners."""
        self.draw.ellipse(self._box(a, b, c, d), fill=fill or self.fill, outline=INK, width=2)

    def arc(self, box: tuple[float, float, float, float], start: float, end: float, width: int = 2) -> None:
        """Draw part of an ellipse's outline; angles in degrees."""
        self.draw.arc(self._box(*box), start, end, fill=INK, width=width)

    def line(self, a: float, b: float, c: float, d: float, width: int = 2) -> None:
        """Draw a line."""
        self.draw.line(self._box(a, b, c, d), fill=INK, width=width)


def _ball(pen: Pen) -> None:
    pen.ellipse(0.03, 0.03, 0.97, 0.97)
    pen.arc((0.25, -0.2, 1.2, 0.75), 90, 200)


def _box(pen: Pen) -> None:
    pen.rectangle(0.05, 0.05, 0.95, 0.95)
    pen.line(0.05, 0.3, 0.95, 0.3)
    pen.line(0.5, 0.05, 0.5, 0.3)


def _star(pen: Pen) -> None:
    pen.polygon(_STAR)


def _heart(pen: Pen) -> None:
    pen.polygon(_HEART)


def _house(pen: Pen) -> None:
    pen.rectangle(0.12, 0.45, 0.88, 0.97)
    pen.polygon(((0, 0.47), (0.5, 0.02), (1, 0.47)), INK)
    pen.rectangle(0.4, 0.65, 0.6, 0.97, INK)


def _car(pen: Pen) -> None:
    pen.polygon(_CAR)
    pen.ellipse(0.12, 0.6, 0.38, 0.88, INK)
    pen.ellipse(0.62, 0.6, 0.88, 0.88, INK)


def _cup(pen: Pen) -> None:
    pen.polygon(_CUP)
    pen.arc((0.5, 0.28, 0.98, 0.72), -90, 100, width=4)


def _key(pen: Pen) -> None:
    pen.ellipse(0, 0.28, 0.44, 0.72)
    pen.ellipse(0.13, 0.41, 0.31, 0.59, INK)
    pen.rectangle(0.42, 0.44, 1, 0.56)
    pen.rectangle(0.72, 0.54, 0.8, 0.78)
    pen.rectangle(0.9, 0.54, 0.98, 0.78)


def _hammer(pen: Pen) -> None:
    pen.rectangle(0.42, 0.3, 0.58, 1)
    pen.rectangle(0.1, 0.05, 0.9, 0.35)


def _fish(pen: Pen) -> None:
    pen.polygon(((0.7, 0.5), (1, 0.2), (1, 0.8)))
    pen.ellipse(0, 0.2, 0.78, 0.8)
    pen.ellipse(0.14, 0.38, 0.26, 0.5, INK)


def _book(pen: Pen) -> None:
    pen.polygon(((0, 0.15), (0.5, 0.25), (0.5, 0.9), (0, 0.8)))
    pen.polygon(((1, 0.15), (0.5, 0.25), (0.5, 0.9), (1, 0.8)))
    for i in range(3):
        pen.line(0.1, 0.35 + 0.15 * i, 0.4, 0.42 + 0.15 * i, width=1)


def _umbrella(pen: Pen) -> None:
    pen.draw.pieslice(pen._box(0, 0.02, 1, 1.0), 180, 360, fill=pen.fill, outline=INK, width=2)
    pen.line(0.5, 0.5, 0.5, 0.9, width=3)
    pen.arc((0.5, 0.8, 0.74, 0.98), 0, 180, width=3)


def _lamp(pen: Pen) -> None:
    pen.line(0.5, 0.45, 0.5, 0.9, width=4)
    pen.polygon(((0.3, 0.05), (0.7, 0.05), (0.95, 0.5), (0.05, 0.5)))
    pen.rectangle(0.25, 0.88, 0.75, 0.98, INK)


def _clock(pen: Pen) -> None:
    pen.rectangle(0.02, 0.02, 0.98, 0.98, INK)
    pen.ellipse(0.08, 0.08, 0.92, 0.92)
    pen.line(0.5, 0.5, 0.5, 0.18, width=3)
    pen.line(0.5, 0.5, 0.75, 0.5, width=3)


def _bell(pen: Pen) -> None:
    pen.polygon(((0.5, 0.02), (0.72, 0.2), (0.78, 0.6), (0.98, 0.8), (0.02, 0.8), (0.22, 0.6), (0.28, 0.2)))
    pen.ellipse(0.38, 0.78, 0.62, 0.98, INK)


def _boat(pen: Pen) -> None:
    pen.line(0.5, 0.02, 0.5, 0.65, width=3)
    pen.polygon(((0.56, 0.05), (0.95, 0.55), (0.56, 0.55)))
    pen.polygon(((0, 0.65), (1, 0.65), (0.8, 0.97), (0.2, 0.97)))


def _bed(pen: Pen) -> None:
    pen.line(0.05, 0.15, 0.05, 0.95, width=5)
    pen.rectangle(0.05, 0.5, 0.97, 0.78)
    pen.rectangle(0.1, 0.34, 0.36, 0.52, PAPER)
    pen.line(0.95, 0.5, 0.95, 0.95, width=5)


def _hat(pen: Pen) -> None:
    pen.rectangle(0.25, 0.12, 0.75, 0.75)
    pen.rectangle(0.25, 0.58, 0.75, 0.72, INK)
    pen.ellipse(0, 0.7, 1, 0.95)


def _scissors(pen: Pen) -> None:
    pen.line(0.2, 0.02, 0.65, 0.65, width=4)
    pen.line(0.8, 0.02, 0.35, 0.65, width=4)
    pen.ellipse(0.08, 0.6, 0.46, 0.98)
    pen.ellipse(0.54, 0.6, 0.92, 0.98)


def _flag(pen: Pen) -> None:
    pen.line(0.12, 0.02, 0.12, 0.98, width=4)
    pen.polygon(((0.14, 0.05), (0.97, 0.12), (0.97, 0.62), (0.14, 0.55)))


_SPRITES = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "heart": _heart,
    "house": _house,
    "car": _car,
    "cup": _cup,
    "key": _key,
    "hammer": _hammer,
    "fish": _fish,
    "book": _book,
    "umbrella": _umbrella,
    "lamp": _lamp,
    "clock": _clock,
    "bell": _bell,
    "boat": _boat,
    "bed": _bed,
    "hat": _hat,
    "scissors": _scissors,
    "flag": _flag,
}


def draw_thing(image: Image.Image, kind: str, color: str, pattern: str, box: Box) -> None:
    """Draw one thing into its square box; its pattern covers what has its colour."""
    x, y, size, _ = box
    fill = COLORS[color]
    _SPRITES[kind](Pen(ImageDraw.Draw(image), x, y, size, fill))
    if pattern == "plain":
        return
    area = (x, y, x + size, y + size)
    drawn = np.asarray(image.crop(area)).copy()
    rows, columns = np.indices(drawn.shape[:2])
    marked = rows % 4 < 2 if pattern == "striped" else (rows % 5 < 2) & (columns % 5 < 2)
    drawn[marked & (drawn == fill).all(-1)] = INK if sum(fill) > 330 else PAPER
    image.paste(Image.fromarray(drawn), area)
