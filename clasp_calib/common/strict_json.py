"""JSON that says one thing, whoever wrote it."""

import json
import math
from typing import Any

MOST_DEPTH = 32
"""Levels of nested JSON. Our choice: files of this package have fewer than ten."""


def strict_json(content: bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        content: the text.
        finite: refuse numbers that are not.

    Raises:
        ValueError: it is no JSON, nested more than `MOST_DEPTH` deep, names a key twice in one object, or holds a
            number that is not finite.
    """
    try:
        number = _finite if finite else float
        value = json.loads(content.decode(), parse_constant=number, parse_float=number, object_pairs_hook=named_once)
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


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON out of its pairs, for ``object_pairs_hook``.

    Raises:
        ValueError: a key stands in it twice.
    """
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the key {name[:100]!r} stands twice in one object")
        content[name] = value
    return content
