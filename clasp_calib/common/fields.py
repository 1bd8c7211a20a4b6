"""Types of the fields of files that may come from anybody."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError


class Strict(BaseModel):
    """What a file holds, and nothing else: no other keys, no NaN, no change afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hex sha256."""
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]{1,4096}$")]
"""One line of text that a terminal may print: no control characters, and none that turn the direction of writing."""
Count = Annotated[int, Field(ge=0, le=1 << 53)]
"""A number of things that JSON readers of all languages hold exactly."""
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]
Share = Annotated[float, Field(ge=0, le=1)]


def describe(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: where, what, and the value given."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:200]
    message = first["msg"].removeprefix("Value error, ")
    if not place or first["type"] == "missing":
        return f"{place}: {message}" if place else message
    if odd := _excluded(first.get("ctx", {}).get("pattern", ""), first["input"]):
        message = f"holds {odd!r}, a character that a terminal cannot print"
    given = repr(first["input"])
    return f"{place}: {message} (given {given if len(given) <= 80 else given[:77] + '...'})"


def _excluded(pattern: str, given: str) -> str:
    """The first character that a pattern of the kind ``^[^...]*$`` excludes."""
    kind = re.match(r"\^\[\^(.+)\]", pattern)
    found = re.search(f"[{kind[1]}]", given) if kind else None
    return found[0] if found else ""
