"""Token budgets: how many visual tokens each pruning stage keeps.

A budget is the *mean* number of visual tokens that a decoder layer works on. Three stages prune at the
layers ``starts = (s0, s1, s2)``, 0-based, which the shortened sequence enters; with ``N`` tokens in,
``(a, b, c)`` kept and ``L`` layers the mean is ``(s0 N + (s1 - s0) a + (s2 - s1) b + (L - s2) c) / L``.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from clasp_calib.common.errors import BudgetError
from clasp_calib.common.pruning_options import AT_INPUT, DEFAULT_STARTS

STAGES = 3
SAY_STARTS = "--starts, or PruningOptions(starts=...)"

# SparseVLM v2's counts, for 576 tokens, 32 layers and the default starts.
# Our choice: the paper's own lists are lost; these reach the budget as a mean without recycled tokens.
PUBLISHED_TOKENS, PUBLISHED_LAYERS = 576, 32
PUBLISHED = {64: (66, 34, 20), 128: (238, 108, 60), 192: (300, 200, 118)}


@dataclass(frozen=True)
class Budget:
    """What the user asked for: a number of tokens, or a percentage of the tokens that the encoder gives."""

    tokens: int | None = None
    percent: float | None = None

    @property
    def name(self) -> str:
        """Canonical spelling, such as ``192`` or ``33%``; artifacts are keyed by it."""
        return f"{self.tokens}" if self.percent is None else f"{self.percent:g}%"

    @property
    def full(self) -> bool:
        """Whether nothing is pruned."""
        return self.percent == 100

    def of(self, tokens: int) -> float:
        """The effective budget for an encoder that gives ``tokens`` visual tokens."""
        return float(self.tokens) if self.tokens is not None else (self.percent or 0) * tokens / 100


def parse_budget(text: str | int) -> Budget:
    """Read a budget: a positive whole number of tokens (``192``) or a percentage in (0, 100] (``33%``).

    Raises:
        BudgetError: anything else.
    """
    given = str(text).strip()
    if re.fullmatch(r"[0-9]{1,9}", given) and int(given) > 0:
        return Budget(tokens=int(given))
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", given) and 0 < float(given[:-1]) <= 100:
        return Budget(percent=float(given[:-1]))
    raise BudgetError(
        f"budget {given!r:.60} is neither a number of tokens nor a share; "
        "give a positive whole number such as 192, or a percentage above 0% and up to 100% such as 33%"
    )


def parse_budgets(budgets: Sequence[str | int] | str | int) -> list[Budget]:
    """Read several budgets, or one that is given by itself.

    Raises:
        BudgetError: anything else.
    """
    # A text is a sequence as well, of its characters.
    if isinstance(budgets, str) or not isinstance(budgets, Iterable):
        return [parse_budget(budgets)]
    return [parse_budget(budget) for budget in budgets]


@dataclass(frozen=True)
class Schedule:
    """How many visual tokens of ``tokens`` enter each of ``layers`` decoder layers, in any number of stages.

    ``counts[i]`` tokens enter layer ``starts[i]`` and those after it, up to the next start.

    Raises:
        BudgetError: starts or counts that cannot be a schedule.
    """

    tokens: int
    layers: int
    starts: tuple[int, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        check_starts(self.starts, self.layers, stages=max(len(self.starts), 1))
        ladder = (self.tokens, *self.counts, 1)
        if len(self.counts) != len(self.starts) or any(a < b for a, b in pairwise(ladder)):
            raise BudgetError(
                f"stage counts {self.counts} do not fit starts {self.starts} and {self.tokens} tokens; "
                f"expected {len(self.starts)} counts that never grow, between 1 and {self.tokens}"
            )

    def counts_for(self, tokens: int) -> tuple[int, ...]:
        """Counts for a row with ``tokens`` visual tokens: of several pictures each gives as many, chosen together."""
        return tuple(max(count * tokens // self.tokens, min(tokens, 1)) for count in self.counts)

    @property
    def changing(self) -> tuple[int, ...]:
        """The starts of the stages that drop anything."""
        before = (self.tokens, *self.counts)
        return tuple(start for start, a, b in zip(self.starts, before, self.counts, strict=False) if b < a)

    @property
    def per_layer(self) -> tuple[int, ...]:
        """Visual tokens that each decoder layer works on."""
        ladder, edges = (self.tokens, *self.counts), (0, *self.starts, self.layers)
        return tuple(n for n, a, b in zip(ladder, edges, edges[1:], strict=False) for _ in range(b - a))

    @property
    def mean_tokens(self) -> float:
        """The effective budget: the mean of `per_layer`."""
        return sum(self.per_layer) / self.layers

    @property
    def floor(self) -> float:
        """The smallest mean that these starts allow, with one token kept in every stage."""
        return _floor(self.tokens, self.layers, self.starts)


@dataclass(frozen=True)
class RelativeSchedule:
    """A percentage of each row's own visual tokens, for models whose pictures differ in number of tokens.

    Raises:
        BudgetError: a budget in tokens, a percentage that no number of tokens can meet, or impossible starts.
    """

    budget: Budget
    layers: int
    starts: tuple[int, ...] = DEFAULT_STARTS

    def __post_init__(self) -> None:
        check_starts(self.starts, self.layers)
        floor = 100 * self.starts[0] / self.layers
        if self.budget.percent is None:
            raise BudgetError(
                f"a budget of {self.budget.name} tokens means something else for every picture of a model whose "
                f"pictures differ in their number of visual tokens; give a percentage above {floor:.4g}%, such as 33%"
            )
        if self.budget.percent <= floor:
            raise BudgetError(
                f"a budget of {self.budget.name} cannot be met: before layer {self.starts[0]} of {self.layers} nothing "
                f"is dropped, which is {floor:.4g}% already; start the first stage earlier ({SAY_STARTS}), "
                "or give a larger percentage"
            )

    @property
    def changing(self) -> tuple[int, ...]:
        """The starts of the stages that drop anything."""
        return () if self.budget.full else self.starts

    def counts_for(self, tokens: int) -> tuple[int, ...]:
        """Counts for a row with ``tokens`` visual tokens.

        Raises:
            BudgetError: so few that the budget is under their floor.
        """
        return _solved(self.budget, tokens, self.layers, self.starts).counts if tokens else (0,) * len(self.starts)


@dataclass(frozen=True)
class ShareSchedule:
    """Given shares of each row's own visual tokens, in any number of stages; no share grows.

    Raises:
        BudgetError: starts or shares that cannot be a schedule.
    """

    layers: int
    starts: tuple[int, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        check_starts(self.starts, self.layers, stages=max(len(self.starts), 1))
        ladder = (1.0, *self.shares, 0.0)
        if len(self.shares) != len(self.starts) or any(a < b for a, b in pairwise(ladder)):
            raise BudgetError(
                f"shares {_listed(self.shares)} do not fit stages at layers {_listed(self.starts)}; "
                f"expected {len(self.starts)} shares between 0 and 1 that never grow"
            )

    @property
    def changing(self) -> tuple[int, ...]:
        """The starts of the stages that drop anything."""
        before = (1.0, *self.shares)
        return tuple(start for start, a, b in zip(self.starts, before, self.shares, strict=False) if b < a)

    def counts_for(self, tokens: int) -> tuple[int, ...]:
        """Counts for a row with ``tokens`` visual tokens, to the nearest (half up), at least one of them."""
        return tuple(max(int(share * tokens + 0.5 + 1e-9), min(tokens, 1)) for share in self.shares)


AnySchedule = Schedule | RelativeSchedule | ShareSchedule


@lru_cache(maxsize=1024)
def _solved(budget: Budget, tokens: int, layers: int, starts: tuple[int, ...]) -> Schedule:
    return solve_schedule(budget, tokens, layers, starts)


def solve_schedule(budget: Budget, tokens: int, layers: int, starts: tuple[int, ...] = DEFAULT_STARTS) -> Schedule:
    """The stage counts whose mean is nearest the budget.

    The published lists stand for the setting that they were published for. Elsewhere the shape
    ``a : b : c`` is interpolated between them by retained share and scaled until the mean meets the budget;
    of the integer triples whose mean is nearest (so within 0.5) the one nearest that shape is taken, then the
    smallest ``a``.

    Args:
        budget: as `parse_budget` reads it.
        tokens: visual tokens of one picture.
        layers: decoder layers.
        starts: the first layers of the three stages, 0-based, the first at least 1.

    Raises:
        BudgetError: the budget is under the floor of these starts, or is ``tokens`` or more and not ``100%``.
    """
    check_starts(starts, layers)
    if budget.full:
        return Schedule(tokens, layers, starts, (tokens,) * STAGES)
    target = budget.of(tokens)
    if target >= tokens:
        raise BudgetError(prunes_nothing(budget, tokens))
    if target < _floor(tokens, layers, starts):
        raise BudgetError(_under_floor(budget, tokens, layers, starts))
    if (tokens, layers, starts) == (
        PUBLISHED_TOKENS,
        PUBLISHED_LAYERS,
        DEFAULT_STARTS,
    ) and target in PUBLISHED:
        return Schedule(tokens, layers, starts, PUBLISHED[int(target)])
    return Schedule(tokens, layers, starts, _nearest_counts(target, tokens, layers, starts))


def check_starts(starts: tuple[int, ...], layers: int, stages: int = STAGES) -> None:
    """Refuse starts that are not so many rising layers between 1 and ``layers - 1``.

    One stage may also begin at layer 0, before which all layers shrink alike.

    Raises:
        BudgetError: with the rule, and with starts as deep as the default ones where the three stages of a budget do
            not fit.
    """
    # In stages layer 0 never shrinks: cache lengths, masks and positions are taken from it.
    if stages == 1 and starts == AT_INPUT:
        return
    edges = (0, *starts, layers)
    if len(starts) != stages or any(a >= b for a, b in pairwise(edges)):
        way_out = ""
        if stages == STAGES < layers:
            way_out = f": name others, such as {','.join(map(str, fitting_starts(layers)))} ({SAY_STARTS})"
        raise BudgetError(
            f"stages at layers {_listed(starts)} do not fit a decoder of {layers} layers; "
            f"expected {stages} rising layers between 1 and {layers - 1}{way_out}"
        )


def fitting_starts(layers: int) -> tuple[int, ...]:
    """Starts as deep in a decoder of more than three layers as the default ones are in that of the paper."""
    return tuple(max(round(start * layers / PUBLISHED_LAYERS), n) for n, start in enumerate(DEFAULT_STARTS, start=1))


def prunes_nothing(budget: Budget, tokens: int) -> str:
    """What is wrong with a budget that is as large as the ``tokens`` of a picture."""
    return (
        f"a budget of {budget.name} tokens prunes nothing: the encoder gives {tokens}; "
        f"give a budget under {tokens}, or 100% for the unpruned model"
    )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _floor(tokens: int, layers: int, starts: tuple[int, ...]) -> float:
    return (starts[0] * tokens + layers - starts[0]) / layers


def _under_floor(budget: Budget, tokens: int, layers: int, starts: tuple[int, ...]) -> str:
    target, floor = budget.of(tokens), _floor(tokens, layers, starts)
    mean = "" if budget.percent is None else f" (a mean of {target:.2f} tokens)"
    latest = int((target - 1) * layers / (tokens - 1)) if tokens > 1 else 0
    earlier = f"at layer {latest} or before" if latest >= 1 else f"earlier (layer {starts[0]} now, not enough here)"
    return (
        f"a budget of {budget.name}{mean} cannot be met: with {tokens} visual tokens, {layers} layers and "
        f"stages at layers {_listed(starts)} the floor is a mean of {floor:.2f} tokens a layer, one token a "
        f"stage; start the first stage {earlier} ({SAY_STARTS}), or give a budget of at least {floor:.2f} tokens"
    )


def _shape(share: float) -> npt.NDArray[np.float64]:
    """Stage counts as shares of all tokens, before scaling to a budget."""
    knots: dict[float, tuple[int, ...]] = {budget / PUBLISHED_TOKENS: counts for budget, counts in PUBLISHED.items()}
    # Our choice: above the largest published list the shape leads to the full budget, which keeps all tokens
    # in every stage; below the smallest it stays as it is there.
    knots[1.0] = (PUBLISHED_TOKENS,) * STAGES
    table = np.array(list(knots.values())) / PUBLISHED_TOKENS
    return np.array([np.interp(share, list(knots), table[:, stage]) for stage in range(STAGES)])


def _nearest_counts(target: float, tokens: int, layers: int, starts: tuple[int, ...]) -> tuple[int, ...]:
    weights = np.diff([*starts, layers])
    wanted = target * layers - starts[0] * tokens
    ideal = _scaled(_shape(target / tokens) * tokens, weights, wanted, tokens)
    # Within `layers` steps around the ideal every remainder of the weighted sum occurs; twice that covers the
    # edges.
    a, b = (np.arange(max(1, int(x) - 2 * layers), min(tokens, int(x) + 2 * layers) + 1) for x in ideal[:2])
    a, b = (grid.ravel() for grid in np.meshgrid(a, b, indexing="ij"))
    rest = (wanted - weights[0] * a - weights[1] * b) / weights[2]
    triples = np.concatenate([np.stack([a, b, np.clip(c, 1, b)], axis=1) for c in (np.floor(rest), np.ceil(rest))])
    triples = triples[triples[:, 0] >= triples[:, 1]]
    # One token more in one stage moves the mean by less than 1, so the nearest is within 0.5.
    missed = np.abs(triples @ weights - wanted)
    distance = ((triples - ideal) ** 2).sum(1)  # Our choice: nearness in shape is counted in tokens.
    best = np.lexsort((triples[:, 0], distance.round(9), missed.round(9)))[0]
    return tuple(int(count) for count in triples[best])


def _scaled(
    shape: npt.NDArray[np.float64], weights: npt.NDArray[np.int64], wanted: float, tokens: int
) -> npt.NDArray[np.float64]:
    """Multiply a shape until its weighted sum is ``wanted``, every count kept between 1 and ``tokens``."""
    low, high = 0.0, tokens / float(shape.min())
    for _ in range(100):
        middle = (low + high) / 2
        if float(np.clip(middle * shape, 1, tokens) @ weights) < wanted:
            low = middle
        else:
            high = middle
    return np.clip(high * shape, 1, tokens)
