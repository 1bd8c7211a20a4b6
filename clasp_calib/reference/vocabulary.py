"""The closed world that the benchmark draws from: kinds of things, colours, places, words."""

PURPOSES = {
    "ball": "playing",
    "box": "storing",
    "star": "decorating",
    "heart": "loving",
    "house": "living",
    "car": "driving",
    "cup": "drinking",
    "key": "unlocking",
    "hammer": "building",
    "fish": "eating",
    "book": "reading",
    "umbrella": "sheltering",
    "lamp": "lighting",
    "clock": "timing",
    "bell": "ringing",
    "boat": "sailing",
    "bed": "sleeping",
    "hat": "wearing",
    "scissors": "cutting",
    "flag": "signaling",
}
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


def plural(kind: str) -> str:
    """The plural of a kind of thing."""
    return {"fish": "fish", "box": "boxes", "scissors": "scissors"}.get(kind, kind + "s")
