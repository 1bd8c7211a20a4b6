"""How many visual tokens pictures have that differ in it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class TokenRange:
    """Mean, smallest and largest number of tokens."""

    mean: float
    least: float
    most: float

    @classmethod
    def of(cls, tokens: Collection[float]) -> Self:
        """Of one picture or more."""
        least, most = min(tokens), max(tokens)
        # Of equal numbers exactly that one, which a sum divided again need not be.
        return cls(least if least == most else sum(tokens) / len(tokens), least, most)

    def __str__(self) -> str:
        """``192.4``, or ``190.3 (64 to 571)`` where pictures differ."""
        differ = self.most - self.least >= 0.5
        return f"{self.mean:.1f} ({self.least:.0f} to {self.most:.0f})" if differ else f"{self.mean:.1f}"
