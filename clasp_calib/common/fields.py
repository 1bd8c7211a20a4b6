"""Types of the fields of files that may come from anybody."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

RESERVED = ("auto", "macro")
"""What no class may be called: let the router say the class; the mean over classes."""


def _trimmed(text: str) -> str:
    if text != text.strip():
        raise ValueError("begins or ends with a space; remove it")
    return text


def _free(text: str) -> str:
    if text in RESERVED:
        raise ValueError(f"{text!r} means something else where classes are named; give the class another name")
    return text


class Strict(BaseModel):
    """What a file holds, and nothing else: no other keys, no NaN, no change afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hex sha256."""
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]{1,4096}$")]
"""One line of text that a terminal may print: no control characters, and none that turn the direction of writing."""
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]{1,100}$"),
    AfterValidator(_trimmed),
]
"""What people call a class or an intent: a short `Line` in any script."""
ClassName = Annotated[Name, AfterValidator(_free)]
"""A `Name` that is none of `RESERVED`."""
Count = Annotated[int, Field(ge=0, le=1 << 53)]
"""A number of things that JSON readers of all languages hold exactly."""
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]
Share = Annotated[float, Field(ge=0, le=1)]


def describe(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: where, what, and the value given."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:200]
    message = first["msg"].removeprefix("Value error, ")
    pattern = first.get("ctx", {}).get("pattern", "")
    if odd := _excluded(pattern, first["input"]):
        message = f"holds {odd!r}, a character that a terminal cannot print"
    elif (most := re.search(r"\{1,(\d+)\}\$$", pattern)) and len(first["input"]) > int(most[1]):
        message = f"has {len(first['input'])} characters; expected {most[1]} at most"
    if not place or first["type"] == "missing":
        return f"{place}: {message}" if place else message
    given = repr(first["input"])
    return f"{place}: {message} (given {given if len(given) <= 80 else given[:77] + '...'})"


def _excluded(pattern: str, given: str) -> str:
    """The first character that a pattern of the kind ``^[^...]*$`` excludes."""
    kind = re.match(r"\^\[\^(.+)\]", pattern)
    found = re.search(f"[{kind[1]}]", given) if kind else None
    return found[0] if found else ""
