"""How visual tokens are pruned, apart from how many: the options that a calibration is made and served under."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

from clasp_calib.common.errors import BudgetError, ModelError

DEFAULT_STARTS = (2, 6, 15)
PROFILES = ("layers",)
RATERS = ("sparsevlm", "all", "last")
POSITIONS = ("keep", "compact")
FEATURES = ("projected", "hidden")
REDUNDANCY, FARTHEST, K_CENTER = SEEDINGS = ("redundancy", "farthest", "k-center")


@dataclass(frozen=True)
class PruningOptions:
    """Options of `clasp_calib.runtime.pruner.prune`, of a calibration, and of its artifact.

    Raises:
        ModelError: an option has a value that it cannot have.
        BudgetError: starts that do not rise from 1 or above.
    """

    profile: str = "layers"
    """Where tokens are dropped. The only value is ``layers``: in stages, between decoder layers."""
    raters: str = "sparsevlm"
    """Which text tokens score the visual ones, see `clasp_calib.runtime.scoring.choose_raters`."""
    positions: str = "keep"
    """What happens to the position ids of kept tokens: ``keep`` them, or ``compact`` them to 0, 1, 2... (impossible
    where positions have several axes, as in Qwen's models)."""
    features: str = "projected"
    """What is clustered by its cosines: the ``projected`` tokens as they entered the decoder, the same at all stages,
    or the ``hidden`` states that enter the stage."""
    iterations: int = 5
    """Rounds of k-means, at least 0."""
    starts: tuple[int, ...] = DEFAULT_STARTS
    """The decoder layers at which the stages begin, counted from 0 and rising; the first is at least 1."""
    seeding: str = REDUNDANCY
    """What k-means starts from: by ``redundancy`` the tokens least like the pivots, as in the paper; by ``farthest``
    the token nearest the mean, then always the one farthest from all before; by ``k-center`` the same, starting from
    the pivots. Of a search this is the default, and its space says which are tried."""

    def __post_init__(self) -> None:
        legal = {
            "profile": PROFILES,
            "raters": RATERS,
            "positions": POSITIONS,
            "features": FEATURES,
            "seeding": SEEDINGS,
        }
        for name, values in legal.items():
            if getattr(self, name) not in values:
                raise ModelError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(values)}")
        if not isinstance(self.iterations, Integral) or self.iterations < 0:
            raise ModelError(f"iterations is {self.iterations!r}; expected 0 or more rounds of k-means")
        whole = isinstance(self.starts, Sequence) and all(isinstance(start, Integral) for start in self.starts)
        if not whole or not self.starts or any(a >= b for a, b in pairwise((0, *self.starts))):
            starts = ", ".join(map(str, self.starts)) or "none" if whole else repr(self.starts)
            raise BudgetError(
                f"stages at layers {starts} do not fit a decoder; expected rising layers, the first at least 1"
            )


DEFAULT_OPTIONS = PruningOptions()
