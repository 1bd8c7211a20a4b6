"""How things, people, signs, arrows, clutter and backgrounds are drawn. No layout, no randomness of its own."""

import math
import random
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clasp_calib.reference.vocabulary import COLORS, IMAGE_SIZE, PATCH

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""``x, y, width, height`` in pixels, the origin at the top left."""

INK: Color = (20, 20, 20)
PAPER: Color = (250, 250, 240)
PLATE: Color = (255, 225, 120)
SKIN: Color = (240, 200, 160)
ARROW: Color = (255, 0, 200)
GROUND: dict[str, tuple[Color, Color]] = {
    "beach": ((130, 200, 240), (235, 215, 160)),
    "forest": ((170, 215, 235), (95, 140, 75)),
    "street": ((190, 200, 210), (110, 110, 115)),
    "room": ((225, 205, 185), (160, 115, 80)),
    "snow": ((200, 215, 230), (238, 240, 245)),
    "desert": ((250, 205, 140), (225, 160, 80)),
}
NIGHT = 0.42

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


def draw_clutter(draw: ImageDraw.ImageDraw, shape: int, shade: Color, box: Box) -> None:
    """Draw something that no question is about: a stone, a bush, a post or a puddle."""
    x, y, width, height = box
    inner = [x + 1, y + 1, x + width - 2, y + height - 2]
    dark: Color = (shade[0] // 2, shade[1] // 2, shade[2] // 2)
    if shape == 0:
        draw.polygon([(x + 1, y + height - 2), (x + width // 3, y + 2), (x + width - 2, y + height - 2)], shade, dark)
    elif shape == 1:
        draw.ellipse(inner, shade, dark)
        draw.ellipse([x + width // 3, y + 1, x + width - 2, y + height // 2], shade, dark)
    elif shape == 2:
        draw.rectangle([x + width // 2 - 3, y + 1, x + width // 2 + 3, y + height - 2], shade, dark)
    else:
        draw.arc(inner, 0, 300, dark, 2)


def draw_weather(draw: ImageDraw.ImageDraw, weather: str, box: Box) -> None:
    """Draw the sun or a cloud, 28 x 28 pixels: with nothing, rain, snow or lightning under it."""
    x, y, _, _ = box
    if weather == "sunny":
        draw.ellipse([x + 5, y + 5, x + 22, y + 22], (255, 215, 0), (200, 120, 0), 2)
        for a, b, c, d in ((13, 0, 13, 4), (13, 23, 13, 27), (0, 13, 4, 13), (23, 13, 27, 13)):
            draw.line([x + a, y + b, x + c, y + d], (200, 120, 0), 3)
        return
    for a, b, c, d in ((1, 6, 14, 17), (12, 6, 26, 17), (6, 0, 20, 15)):
        draw.ellipse([x + a, y + b, x + c, y + d], (120, 125, 135))
    for left in (5, 13, 21):
        if weather == "rainy":
            draw.line([x + left + 3, y + 18, x + left - 1, y + 27], (0, 90, 220), 3)
        elif weather == "snowy":
            draw.ellipse([x + left - 2, y + 20, x + left + 3, y + 25], (255, 255, 255), (90, 90, 90))
    if weather == "stormy":
        bolt = [(14, 15), (7, 22), (13, 22), (9, 28), (20, 20), (14, 20), (18, 15)]
        draw.polygon([(x + a, y + b) for a, b in bolt], (255, 230, 0), (120, 60, 0))


def draw_person(draw: ImageDraw.ImageDraw, color: str, box: Box, action: str, side: int) -> None:
    """Draw a person of 28 x 56 pixels; ``side`` is 1 when facing right, -1 when facing left."""
    x, y, _, _ = box
    middle = x + 14

    def limb(a: float, b: float, c: float, d: float) -> None:
        draw.line([middle + a, y + b, middle + c, y + d], fill=INK, width=4)

    draw.ellipse([middle - 7, y, middle + 7, y + 14], fill=SKIN, outline=INK, width=2)
    draw.rectangle([middle - 8, y + 14, middle + 8, y + 36], fill=COLORS[color], outline=INK, width=2)
    limb(-4, 36, -6, 55)
    if action == "kicking":
        limb(4 * side, 36, 16 * side, 48)
    else:
        limb(4, 36, 6, 55)
    if action == "pushing":
        limb(0, 19, 18 * side, 19)
        limb(0, 26, 18 * side, 26)
    elif action == "holding":
        limb(-8, 18, -12, -2)
        limb(8, 18, 12, -2)
    else:
        limb(-9, 16, -13, 34)
        limb(9, 16, 13, 34)


def draw_arrow(draw: ImageDraw.ImageDraw, box: Box, direction: tuple[int, int]) -> None:
    """Draw an arrow inside ``box`` that points to ``direction`` (a unit step in x or y)."""
    x, y, width, height = box
    dx, dy = direction
    cx, cy = x + width / 2, y + height / 2
    tip = (cx + dx * 4, cy + dy * 4)
    draw.line([cx - dx * 13, cy - dy * 13, *tip], fill=ARROW, width=4)
    head = [
        (tip[0] + dx * 9, tip[1] + dy * 9),
        (tip[0] - dy * 6, tip[1] + dx * 6),
        (tip[0] + dy * 6, tip[1] - dx * 6),
    ]
    draw.polygon(head, fill=ARROW)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships DejaVu, so the same glyphs are drawn on every machine.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


FONTS = ("DejaVuSansMono-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf")


def draw_sign(draw: ImageDraw.ImageDraw, text: str, box: Box, font: str, size: int, paper: Color) -> None:
    """Write ``text`` on a plate, one character a patch, in a font of ``size`` pixels."""
    x, y, width, height = box
    draw.rectangle([x, y, x + width - 1, y + height - 1], fill=paper)
    for i, character in enumerate(text):
        center = (x + PATCH * i + PATCH // 2, y + PATCH // 2)
        draw.text(center, character, fill=(10, 10, 10), font=_font(font, size), anchor="mm")


def draw_background(rng: random.Random, place: str, time: str) -> Image.Image:
    """A picture of sky and ground with the marks of a place, dimmed at night."""
    light = NIGHT if time == "night" else 1.0

    def dim(color: Color, factor: float = 1.0) -> Color:
        red, green, blue = (max(0, min(255, int(v * factor * light))) for v in color)
        return red, green, blue

    def vary(color: Color) -> Color:
        red, green, blue = (v + rng.randint(-12, 12) for v in color)
        return red, green, blue

    sky, ground = (vary(c) for c in GROUND[place])
    horizon = rng.randint(120, 190)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), dim(sky))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, horizon, IMAGE_SIZE, IMAGE_SIZE], fill=dim(ground))
    if place == "beach":
        draw.rectangle([0, horizon - 24, IMAGE_SIZE, horizon], fill=dim((60, 140, 200)))
    elif place == "forest":
        for x in range(-10, IMAGE_SIZE, rng.randint(24, 34)):
            top = horizon - rng.randint(24, 46)
            draw.polygon([(x, horizon), (x + 14, top), (x + 28, horizon)], fill=dim((35, 90, 45)))
    elif place == "street":
        for x in range(rng.randint(-20, 0), IMAGE_SIZE, 44):
            draw.rectangle([x, horizon + 70, x + 22, horizon + 74], fill=dim((255, 255, 255), 0.9))
    elif place == "desert":
        for x in range(rng.randint(-30, 0), IMAGE_SIZE, 70):
            draw.polygon([(x, horizon), (x + 35, horizon - 16), (x + 70, horizon)], fill=dim(ground, 0.9))
    elif place == "room":
        for x in range(rng.randint(0, 20), IMAGE_SIZE, 28):
            draw.line([x, 0, x, horizon], fill=dim(sky, 0.88), width=3)
    else:
        for _ in range(70):
            x, y = rng.randint(0, IMAGE_SIZE), rng.randint(0, IMAGE_SIZE)
            draw.ellipse([x, y, x + 3, y + 3], fill=dim((255, 255, 255)))
    for _ in range(rng.randint(20, 60)):
        x, y = rng.randint(0, IMAGE_SIZE), rng.randint(horizon, IMAGE_SIZE)
        shade = rng.uniform(0.8, 1.15)
        draw.ellipse([x, y, x + rng.randint(2, 6), y + rng.randint(2, 4)], fill=dim(ground, shade))
    return image
