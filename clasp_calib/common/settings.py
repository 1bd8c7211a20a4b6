"""Numbers and names that somebody gives: what is none, out of range or not there is refused by its name."""

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TypeVar

from clasp_calib.common.errors import InputError

_T = TypeVar("_T")


def one_of(what: str, name: str, among: Mapping[str, _T]) -> _T:
    """The entry of a name.

    Raises:
        InputError: there is none; it says which there are.
    """
    if name not in among:
        raise InputError(f"there is no {what} {name!r} here; choose from {', '.join(among)}")
    return among[name]


def check_kind(name: str, value: object, kind: type, expected: str) -> None:
    """Refuse what is there and of another type.

    Args:
        name: of the setting.
        value: that was given; ``None`` passes.
        kind: its type.
        expected: in words.

    Raises:
        InputError: with the name and the value.
    """
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{name} is {value!r:.100}; expected {expected}")


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or too small.

    Raises:
        InputError: with the name and the value.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{name} is {value!r:.100}; expected a whole number, at least {least}")
    if int(value) < least:
        raise InputError(f"{name} is {value}; expected at least {least}")


def check_number(name: str, value: object, allowed: Callable[[float], bool], expected: str) -> None:
    """Refuse what is no number, or not allowed.

    Args:
        name: of the setting.
        value: that was given.
        allowed: says so of a number; not-a-number should not be.
        expected: in words.

    Raises:
        InputError: with the name, the value and what was expected.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and allowed(float(value))):  # type: ignore[arg-type]
        raise InputError(f"{name} is {f'{value:g}' if number else f'{value!r:.100}'}; expected {expected}")
