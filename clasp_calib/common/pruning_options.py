"""How visual tokens are pruned, apart from how many: the options that a calibration is made and served under."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

from clasp_calib.common.errors import BudgetError, ModelError

DEFAULT_STARTS = (2, 6, 15)
AT_INPUT = (0,)
LAYERED, INPUT = PROFILES = ("layered", "input")
CLASS_TOKEN, MEAN_ATTENTION, NONE = RELEVANCES = ("class-token", "mean-attention", "none")
RATERS = ("sparsevlm", "all", "last")
KEEP, COMPACT = POSITIONS = ("keep", "compact")
FEATURES = ("projected", "hidden")
REDUNDANCY, FARTHEST, K_CENTER = SEEDINGS = ("redundancy", "farthest", "k-center")


@dataclass(frozen=True)
class PruningOptions:
    """Options of `clasp_calib.runtime.pruner.prune`, of a calibration, and of its artifact.

    Raises:
        ModelError: an option has a value that it cannot have.
        BudgetError: starts that do not rise from 1 or above.
    """

    profile: str = LAYERED
    """Where tokens are dropped: ``layered``, in stages between decoder layers, rated by the instruction; or ``input``,
    once before the decoder, rated by the vision tower, so that all layers work on as many."""
    raters: str = "sparsevlm"
    """In the profile ``layered``, which text tokens score the visual ones, see
    `clasp_calib.runtime.scoring.choose_raters`."""
    positions: str | None = None
    """What happens to the position ids of kept tokens: ``keep`` them, or ``compact`` them to 0, 1, 2... (impossible
    where positions have several axes, as in Qwen's models). By default ``keep``; in the profile ``input`` ``compact``
    where that is possible."""
    features: str = "projected"
    """What is clustered by its cosines: the ``projected`` tokens as they entered the decoder, the same at all stages,
    or the ``hidden`` states that enter the stage."""
    iterations: int = 5
    """Rounds of k-means, at least 0."""
    starts: tuple[int, ...] = DEFAULT_STARTS
    """The decoder layers at which the stages begin, counted from 0 and rising; the first is at least 1. In the profile
    ``input`` always ``(0,)``."""
    seeding: str = REDUNDANCY
    """What k-means starts from: by ``redundancy`` the tokens least like the pivots, as in the paper; by ``farthest``
    the token nearest the mean, then always the one farthest from all before; by ``k-center`` the same, starting from
    the pivots. Of a search this is the default, and its space says which are tried."""
    relevance: str | None = None
    """In the profile ``input``, what rates the tokens: the attention of the tower's ``class-token``, the
    ``mean-attention`` of all its patches, or ``none``: every token is kept for coverage then, whatever rho is. By
    default the first of these that the model has. Of a search this is the default's, and its space says which are
    tried."""

    def __post_init__(self) -> None:
        legal: dict[str, tuple[str | None, ...]] = {
            "profile": PROFILES,
            "relevance": (*RELEVANCES, None),
            "raters": RATERS,
            "positions": (*POSITIONS, None),
            "features": FEATURES,
            "seeding": SEEDINGS,
        }
        for name, values in legal.items():
            if getattr(self, name) not in values:
                raise ModelError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(filter(None, values))}"
                )
        if not isinstance(self.iterations, Integral) or self.iterations < 0:
            raise ModelError(f"iterations is {self.iterations!r}; expected 0 or more rounds of k-means")
        if self.profile == INPUT:
            self._check_input()
            return
        if self.relevance is not None:
            raise ModelError(
                f"relevance={self.relevance!r} rates tokens before the decoder; with profile='layered' the instruction "
                "does: leave it out, or give profile='input'"
            )
        object.__setattr__(self, "positions", self.positions or KEEP)
        whole = isinstance(self.starts, Sequence) and all(isinstance(start, Integral) for start in self.starts)
        if not whole or not self.starts or any(a >= b for a, b in pairwise((0, *self.starts))):
            starts = ", ".join(map(str, self.starts)) or "none" if whole else repr(self.starts)
            raise BudgetError(
                f"stages at layers {starts} do not fit a decoder; expected rising layers, the first at least 1"
            )

    @property
    def rated(self) -> bool:
        """Whether tokens have a relevance, so that rho means something."""
        return self.relevance != NONE

    @property
    def scored_under(self) -> dict[str, Any]:
        """What a score depends on but for what schedules and candidates say, by name."""
        own = ("raters", "features") if self.profile == LAYERED else ("profile", "relevance")
        return {name: getattr(self, name) for name in (*own, "positions", "iterations")}

    def _check_input(self) -> None:
        if self.starts not in (DEFAULT_STARTS, AT_INPUT):
            raise BudgetError(
                f"stages at layers {self.starts} are inside the decoder, and profile='input' has one stage, before it; "
                "leave the stages (starts) out, or give profile='layered'"
            )
        object.__setattr__(self, "starts", AT_INPUT)
        for name, default in (("raters", RATERS[0]), ("features", FEATURES[0])):
            if getattr(self, name) != default:
                raise ModelError(
                    f"{name}={getattr(self, name)!r} is for stages inside the decoder, and profile='input' has one "
                    f"before it; leave {name} out, or give profile='layered'"
                )


DEFAULT_OPTIONS = PruningOptions()
