"""The closed world that the benchmark draws from: kinds of things, colours, places, words."""

KINDS = (
    "ball",
    "box",
    "star",
    "heart",
    "house",
    "car",
    "cup",
    "key",
    "hammer",
    "fish",
    "book",
    "umbrella",
)
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
}
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 220, 40),
    "purple": (150, 50, 180),
    "orange": (250, 140, 30),
    "white": (250, 250, 250),
}
SIZES = ("small", "large")
PLACES = ("beach", "forest", "street", "room", "snow")
TIMES = ("day", "night")
ACTIONS = ("pushing", "holding", "kicking", "standing")
WORDS = (
    "stop",
    "exit",
    "open",
    "sale",
    "cafe",
    "bank",
    "taxi",
    "hotel",
    "park",
    "milk",
    "fire",
    "bus",
    "zoo",
    "gym",
    "food",
    "book",
)
IMAGE_SIZE = 336
PATCH = 14
GRID = IMAGE_SIZE // PATCH


def plural(kind: str) -> str:
    """The plural of a kind of thing."""
    return {"fish": "fish", "box": "boxes"}.get(kind, kind + "s")
