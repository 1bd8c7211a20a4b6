"""One candidate: a mixture over vision layers, and what chooses tokens: a ratio and its company, or a selector."""

from dataclasses import dataclass, field
from functools import cached_property

from clasp_calib.common.pruning_options import REDUNDANCY
from clasp_calib.common.selector_choice import SelectorChoice


@dataclass(frozen=True)
class Candidate:
    """``alpha`` over ``hidden_states`` 0..L_v (non-negative, summing to 1), ``rho`` in [0, 1], and what else differs.

    Two candidates are equal if these and ``drawn`` are, whatever their prototypes are called.
    """

    prototype: str = field(compare=False)
    alpha: tuple[float, ...]
    rho: float
    seeding: str = REDUNDANCY
    """See `clasp_calib.common.pruning_options.PruningOptions`; with rho = 1, where nothing is seeded, the paper's.
    Names and keys leave the paper's out."""
    relevance: str | None = None
    """What rates the tokens in the profile ``input``; ``None``: what the pruning options say, and so always with
    rho = 0, where nothing is kept for its relevance. Names and keys leave ``None`` out."""
    downsample: float | None = None
    """The picture is made smaller until it has at most this share of its tokens, see
    `clasp_calib.baselines.downsampling.DownSampling`; ``None``: it is shown as it is, and names and keys leave it out.
    """
    selector: SelectorChoice | None = None
    """What chooses tokens in the place of the dual-stage selection, its knobs solved for a budget. Then rho is 1 and
    relevance ``None``, for they mean nothing. Names and keys leave ``None`` out."""
    drawn: int | None = None
    """Seed of random pruning, a control: tokens are drawn, whatever rho is. None where they are chosen."""
    called: str = field(default="", compare=False)
    """The selector with the knobs that were asked for, where others were solved; its own name by default."""

    def __post_init__(self) -> None:
        if self.selector:
            object.__setattr__(self, "rho", 1.0)
            object.__setattr__(self, "relevance", None)
        if self.rho == 1:
            object.__setattr__(self, "seeding", REDUNDANCY)
        if self.rho == 0:
            object.__setattr__(self, "relevance", None)

    @property
    def name(self) -> str:
        """Unique within a search space."""
        if self.selector:
            return f"{self.prototype}/{self.called or self.selector}{self._further('/')}"
        return f"{self.prototype}/rho={self.rho:g}{self._further('/')}"

    @cached_property
    def key(self) -> str:
        """What decides its scores, whatever it is called; to the last bit."""
        mixture = "+".join(f"{weight!r}*{layer}" for layer, weight in enumerate(self.alpha) if weight)
        drawn = "" if self.drawn is None else f" drawn={self.drawn}"
        chosen = f" selector={self.selector}" if self.selector else ""
        return f"{mixture} rho={self.rho!r}{self._further(' ')}{drawn}{chosen}"

    def _further(self, separator: str) -> str:
        smaller = self.downsample and f"downsample={self.downsample:g}"
        told = ("" if self.seeding == REDUNDANCY else self.seeding, self.relevance, smaller)
        return "".join(f"{separator}{name}" for name in told if name)
