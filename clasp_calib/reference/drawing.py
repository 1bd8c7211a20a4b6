"""How people, signs, arrows, weather, clutter and backgrounds are drawn. No layout, no randomness of its own."""

import random
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clasp_calib.reference.vocabulary import COLORS, IMAGE_SIZE, PATCH, SQUARE

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
FONTS = ("DejaVuSansMono-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf")
"""Shipped with the package, unchanged from DejaVu 2.35, so that the same glyphs are drawn on every machine."""
_PLACE = Path(__file__).parent / "assets" / "fonts"


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
    # From memory: of a file that is missing Pillow would look for a namesake on the system. And not the layout by
    # Raqm, which Pillow takes where the machine has FriBidi, and which shifts some glyphs.
    return ImageFont.truetype(BytesIO((_PLACE / name).read_bytes()), size, layout_engine=ImageFont.Layout.BASIC)


def draw_sign(draw: ImageDraw.ImageDraw, text: str, box: Box, font: str, size: int, paper: Color) -> None:
    """Write ``text`` on a plate, one character a patch, in a font of ``size`` pixels."""
    x, y, width, height = box
    draw.rectangle([x, y, x + width - 1, y + height - 1], fill=paper)
    for i, character in enumerate(text):
        center = (x + PATCH * i + PATCH // 2, y + PATCH // 2)
        draw.text(center, character, fill=(10, 10, 10), font=_font(font, size), anchor="mm")


def draw_background(rng: random.Random, place: str, time: str, size: tuple[int, int] = SQUARE) -> Image.Image:
    """A picture of sky and ground with the marks of a place, dimmed at night; size is width and height."""
    wide, high = size
    light = NIGHT if time == "night" else 1.0

    def dim(color: Color, factor: float = 1.0) -> Color:
        red, green, blue = (max(0, min(255, int(v * factor * light))) for v in color)
        return red, green, blue

    def vary(color: Color) -> Color:
        red, green, blue = (v + rng.randint(-12, 12) for v in color)
        return red, green, blue

    sky, ground = (vary(c) for c in GROUND[place])
    horizon = rng.randint(120 * high // IMAGE_SIZE, 190 * high // IMAGE_SIZE)
    image = Image.new("RGB", size, dim(sky))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, horizon, wide, high], fill=dim(ground))
    if place == "beach":
        draw.rectangle([0, horizon - 24, wide, horizon], fill=dim((60, 140, 200)))
    elif place == "forest":
        for x in range(-10, wide, rng.randint(24, 34)):
            top = horizon - rng.randint(24, 46)
            draw.polygon([(x, horizon), (x + 14, top), (x + 28, horizon)], fill=dim((35, 90, 45)))
    elif place == "street":
        for x in range(rng.randint(-20, 0), wide, 44):
            draw.rectangle([x, horizon + 70, x + 22, horizon + 74], fill=dim((255, 255, 255), 0.9))
    elif place == "desert":
        for x in range(rng.randint(-30, 0), wide, 70):
            draw.polygon([(x, horizon), (x + 35, horizon - 16), (x + 70, horizon)], fill=dim(ground, 0.9))
    elif place == "room":
        for x in range(rng.randint(0, 20), wide, 28):
            draw.line([x, 0, x, horizon], fill=dim(sky, 0.88), width=3)
    else:
        for _ in range(70):
            x, y = rng.randint(0, wide), rng.randint(0, high)
            draw.ellipse([x, y, x + 3, y + 3], fill=dim((255, 255, 255)))
    for _ in range(rng.randint(20, 60)):
        x, y = rng.randint(0, wide), rng.randint(horizon, high)
        shade = rng.uniform(0.8, 1.15)
        draw.ellipse([x, y, x + rng.randint(2, 6), y + rng.randint(2, 4)], fill=dim(ground, shade))
    return image
