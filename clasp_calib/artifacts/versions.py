"""Semantic versions of artifacts."""

import re

from clasp_calib.common.errors import InputError

PARTS = ("major", "minor", "patch")
_SEMVER = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")


def raised(version: str, to: str) -> str:
    """The version after ``version``.

    Args:
        version: three numbers with dots.
        to: ``major``, ``minor`` or ``patch``; or the new version itself, which must be above the old one.

    Raises:
        InputError: ``to`` is neither, or not above.
    """
    numbers = _numbers(version)
    if to in PARTS:
        place = PARTS.index(to)
        return ".".join(map(str, (*numbers[:place], numbers[place] + 1, *(0,) * (2 - place))))
    if not _SEMVER.fullmatch(to):
        raise InputError(f"{to!r} is no version; expected major, minor, patch, or three numbers such as 1.2.0")
    if _numbers(to) <= numbers:
        raise InputError(f"version {to} is not above {version}; versions only rise, so that none names two contents")
    return to


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
