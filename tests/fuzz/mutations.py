"""Damage done to files: bytes of any kind, and the values of JSON. A generator decides what is done."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**62, 2**63, 2**64, 10**40, -(2**62), 1e308, -1e308, 0.1, 1e-320)
WORDS = (
    "",
    " ",
    "\0",
    "a\0b",
    "../victim",
    "/etc/passwd",
    "..",
    ".",
    "nan",
    "null",
    "-5",
    "1e999",
    "\ud800",
    "\x1b[31m",
)
WORDS += ("😀" * 40, "x" * 5000, "é", "{{x}}", "%s%n", "shard-00000.h5", "../../victim", "[bold]", "__class__")
PIECES = (
    b"\0",
    b"\xff\xff\xff\xff",
    b"../victim",
    b"\r\n",
    b'"',
    b"{",
    b"[" * 200,
    b"NaN",
    b"\xef\xbb\xbf",
    b"1" * 400,
)


def any_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut, repeat or insert, between one and eight times."""
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(body) + 1)
        length = min(len(body) - at, rng.choice((1, 2, 4, 8, 64, 1000)))
        match rng.randrange(7):
            case 0 if at < len(body):
                body[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(body):
                body[at] = rng.randrange(256)
            case 2:
                body[at : at + length] = rng.randbytes(length)
            case 3:
                del body[at : at + length]
            case 4:
                body[at:at] = body[at : at + length] * rng.choice((1, 2, 50))
            case 5:
                body[at:at] = rng.choice(PIECES)
            case 6:
                number = rng.choice([n for n in NUMBERS if isinstance(n, int) and 0 <= n < 2**64])
                body[at : at + 8] = number.to_bytes(8, rng.choice(("little", "big")))
    return bytes(body[: rng.randrange(len(body) + 1)] if rng.random() < 0.05 else body)


def json_values(data: bytes, rng: random.Random) -> bytes:
    """Change values of one line of JSON lines, or of a JSON file, and leave it JSON most of the time."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except ValueError:
        return any_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(value, rng)
    lines[at] = json.dumps(value, ensure_ascii=rng.random() < 0.8).encode("utf-8", "surrogatepass")
    whole = b"\n".join(lines)
    return any_bytes(whole, rng) if rng.random() < 0.1 else whole


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one place in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {(rng.choice(WORDS) if name == key else name): inner for name, inner in value.items()}
        if rng.random() < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:at] + value[at + 1 :]
        if rng.random() < 0.1:
            return value[:at] + value[at : at + 1] * rng.choice((2, 300)) + value[at + 1 :]
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.3:
        return rng.choice((-value, value + 1, value - 1, value * 1000, value / 3))
    return _other(rng)


def _other(rng: random.Random) -> Any:
    makes: Sequence[Callable[[], Any]] = (
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(WORDS),
        lambda: rng.choice((None, True, False, [], {}, float("nan"), float("inf"))),
        lambda: _deep(rng.choice((3, 100, 900))),
        lambda: [rng.choice(NUMBERS) for _ in range(rng.choice((1, 3, 40)))],
        lambda: {rng.choice(WORDS): rng.choice(NUMBERS)},
    )
    return rng.choice(makes)()


def _deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value
