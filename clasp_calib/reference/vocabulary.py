"""The closed world that the benchmark draws from: kinds of things, colours, places, words."""

import json
from pathlib import Path
from typing import Any

THINGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "assets" / "things.json").read_text(encoding="utf-8")
)
"""Kind of thing -> what it is for, and the strokes that draw it."""
PURPOSES: dict[str, str] = {kind: thing["purpose"] for kind, thing in THINGS.items()}
KINDS = tuple(PURPOSES)
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 220, 40),
    "purple": (150, 50, 180),
    "orange": (250, 140, 30),
    "white": (250, 250, 250),
    "pink": (250, 150, 190),
}
SIZES = ("small", "large")
PATTERNS = ("plain", "striped", "dotted")
PLACES = ("beach", "forest", "street", "room", "snow", "desert")
WEATHERS = ("sunny", "cloudy", "rainy", "snowy", "stormy")
TIMES = ("day", "night")
ACTIONS = ("pushing", "holding", "kicking", "standing")
_WORDS = """
stop exit open sale cafe bank taxi hotel park milk fire bus zoo gym food book shop menu ice tea pizza music radio beach
train north south east west wifi pull push danger school lunch river
"""
WORDS = tuple(_WORDS.split())
"""No two have the same letters."""
IMAGE_SIZE = 336
PATCH = 14
GRID = IMAGE_SIZE // PATCH
SQUARE = (IMAGE_SIZE, IMAGE_SIZE)
"""Width and height of the embedded benchmark's pictures, in pixels."""


def plural(kind: str) -> str:
    """The plural of a kind of thing."""
    return {"fish": "fish", "box": "boxes", "scissors": "scissors"}.get(kind, kind + "s")
