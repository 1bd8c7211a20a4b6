"""Reading what may come from anybody: regular files of bounded size, and JSON that says one thing."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

MOST_DEPTH = 32
"""Levels of nested JSON. Our choice: files of this package have fewer than ten."""


def read_bounded(path: Path, limit: int) -> bytes:
    """A regular file's bytes.

    Args:
        path: of the file.
        limit: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a pipe or a device, which would never end, or larger than ``limit``; goes on from the path.
    """
    # A pipe that nobody writes to blocks on opening, unless asked not to.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is no regular file")
        if found.st_size > limit:
            raise ValueError(f"is larger than the {limit} bytes that it can need")
        return file.read(found.st_size)


def strict_json(content: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: it is no JSON, nested more than `MOST_DEPTH` deep, names a key twice in one object, or holds a
            number that is not finite.
    """
    try:
        value = json.loads(content.decode(), parse_constant=_finite, parse_float=_finite, object_pairs_hook=_named_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for values in inner for one in values]
        if not level:
            return value
    raise ValueError(f"it is nested more than {MOST_DEPTH} deep")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is no finite number")
    return value


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name[:100]!r} stands twice in one object")
        content[name] = value
    return content
