"""One candidate: a mixture over vision layers and a ratio."""

from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Candidate:
    """``alpha`` over ``hidden_states`` 0..L_v (non-negative, summing to 1) and ``rho`` in [0, 1].

    Two candidates are equal if these two are, whatever their prototypes are called.
    """

    prototype: str = field(compare=False)
    alpha: tuple[float, ...]
    rho: float

    @property
    def name(self) -> str:
        """Unique within a search space."""
        return f"{self.prototype}/rho={self.rho:g}"

    @cached_property
    def key(self) -> str:
        """What decides its scores, whatever it is called; to the last bit."""
        mixture = "+".join(f"{weight!r}*{layer}" for layer, weight in enumerate(self.alpha) if weight)
        return f"{mixture} rho={self.rho!r}"
