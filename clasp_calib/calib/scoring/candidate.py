"""One candidate: a mixture over vision layers, a ratio, and what k-means starts from."""

from dataclasses import dataclass, field
from functools import cached_property

from clasp_calib.common.pruning_options import REDUNDANCY


@dataclass(frozen=True)
class Candidate:
    """``alpha`` over ``hidden_states`` 0..L_v (non-negative, summing to 1), ``rho`` in [0, 1], and ``seeding``.

    Two candidates are equal if these and ``drawn`` are, whatever their prototypes are called.
    """

    prototype: str = field(compare=False)
    alpha: tuple[float, ...]
    rho: float
    seeding: str = REDUNDANCY
    """See `clasp_calib.common.pruning_options.PruningOptions`; with rho = 1, where nothing is seeded, the paper's.
    Names and keys leave the paper's out."""
    drawn: int | None = None
    """Seed of random pruning, a control: tokens are drawn, whatever rho is. None where they are chosen."""

    def __post_init__(self) -> None:
        if self.rho == 1:
            object.__setattr__(self, "seeding", REDUNDANCY)

    @property
    def name(self) -> str:
        """Unique within a search space."""
        return f"{self.prototype}/rho={self.rho:g}{self._seeded('/')}"

    @cached_property
    def key(self) -> str:
        """What decides its scores, whatever it is called; to the last bit."""
        mixture = "+".join(f"{weight!r}*{layer}" for layer, weight in enumerate(self.alpha) if weight)
        drawn = "" if self.drawn is None else f" drawn={self.drawn}"
        return f"{mixture} rho={self.rho!r}{self._seeded(' ')}{drawn}"

    def _seeded(self, separator: str) -> str:
        return "" if self.seeding == REDUNDANCY else f"{separator}{self.seeding}"
