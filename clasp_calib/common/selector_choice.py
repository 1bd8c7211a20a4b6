"""Which published method chooses tokens in the place of the dual-stage selection, and its knobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

CLASP = "clasp"
"""The dual-stage selection itself, as spaces and options call it."""
AUTO = "auto"
"""Stands for the selectors that a search chooses itself; no selector is called so."""
Knob = str | bool | int | float | tuple[int | float, ...] | None


@dataclass(frozen=True)
class SelectorChoice:
    """A selector that is not CLASP's: its name and its knobs, in the order of their names."""

    name: str
    knobs: tuple[tuple[str, Knob], ...] = ()

    @classmethod
    def of(cls, name: str, knobs: Mapping[str, Any]) -> Self:
        """With knobs in any order; lists count as tuples."""
        listed = {knob: tuple(value) if isinstance(value, list) else value for knob, value in knobs.items()}
        return cls(name, tuple(sorted(listed.items())))

    def __str__(self) -> str:
        return self._told(repr)

    @property
    def short(self) -> str:
        """The same with rounded numbers, for people."""
        return self._told("{:.4g}".format)

    def _told(self, number: Callable[[float], str]) -> str:
        def told(value: Knob) -> str:
            if isinstance(value, tuple):
                return ",".join(map(told, value))
            return number(value) if isinstance(value, float) else str(value)

        return " ".join([self.name, *(f"{knob}={told(value)}" for knob, value in self.knobs)])
