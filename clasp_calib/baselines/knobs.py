"""Refusing knobs at which a method would fail, or keep another number of tokens than it says."""

from itertools import pairwise
from math import inf, isfinite
from typing import Any

from clasp_calib.common.errors import InputError


def require(method: Any, knob: str, fine: bool, expected: str) -> None:
    """Refuse a knob of a method.

    Args:
        method: a dataclass with a ``name``, whose fields are the knobs.
        knob: which of them.
        fine: whether it can be had.
        expected: what it has to be, for the error.

    Raises:
        InputError: it cannot.
    """
    if not fine:
        raise InputError(
            f"the knob {knob!r} of {method.name} is {getattr(method, knob)!r}; expected {expected}: change it, or "
            "leave it as the authors set it"
        )


def require_shares(method: Any, *knobs: str) -> None:
    """Refuse numbers, or tuples of numbers, outside [0, 1].

    Raises:
        InputError: there is one.
    """
    for knob in knobs:
        value = getattr(method, knob)
        many = value if isinstance(value, tuple) else (value,)
        expected = "shares between 0 and 1" if isinstance(value, tuple) else "a share between 0 and 1"
        require(method, knob, all(0 <= share <= 1 for share in many), expected)


def require_weight(method: Any, knob: str, most: float = inf) -> None:
    """Refuse a number below 0, one above ``most``, and one that is not finite.

    Raises:
        InputError: it is such.
    """
    value, expected = getattr(method, knob), "a finite number from 0 up" + (f" to {most:g}" if most < inf else "")
    require(method, knob, isfinite(value) and 0 <= value <= most, expected)


def require_falling(method: Any, knob: str) -> None:
    """Refuse shares of the stages that are not as many as ``starts``, that grow, or are outside [0, 1].

    Raises:
        InputError: they are such.
    """
    shares, stages = getattr(method, knob), len(method.starts)
    if shares == getattr(type(method), knob, None):
        # Then the starts were set, and not these.
        require(method, "starts", len(shares) == stages, f"{len(shares)} decoder layers, one for each of its {knob}")
    fine = len(shares) == stages and all(a >= b for a, b in pairwise((1, *shares, 0)))
    require(method, knob, fine, f"{stages} shares between 0 and 1 that do not grow, one for each of its starts")


def require_starts(method: Any, stages: int | None = None) -> None:
    """Refuse ``starts`` that do not rise from layer 1 on.

    Args:
        method: as for `require`.
        stages: how many there have to be; any number but none if not given.

    Raises:
        InputError: they are such.
    """
    starts = method.starts
    fine = bool(starts) and stages in (None, len(starts)) and all(a < b for a, b in pairwise((0, *starts)))
    require(method, "starts", fine, f"{stages or 'some'} rising decoder layers, from 1 on")
