"""What is recorded of the choices of a budget: what was chosen for each class, on what evidence, and how sure it is.

Gains and regrets are in units of what the search maximised; with the objective ``metric`` 0.01 is a point.
"""

import math
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator

from clasp_calib.common.fields import Count, Line, Share, Slug, Strict
from clasp_calib.common.selector_choice import SelectorChoice

BudgetName = Annotated[str, StringConstraints(pattern=r"^[0-9][0-9.]{0,15}%?$")]
Positive = Annotated[Count, Field(ge=1)]
Smaller = Annotated[float, Field(ge=0.01, lt=1)]
Regret = Annotated[float, Field(ge=0)]
_Knob = Line | bool | int | float | None
SINCE_2 = ("samples", "calibration_samples", "default", "default_samples", "verdict", "posterior")
"""Fields of a choice that format 1 does not have."""
_LATER = ("relevance", "downsample", "selector")
_ONLY_1 = ("selection", "selection_default", "confirmation", "refinement")


class Confirmation(Strict):
    """What the best finalist gained over the default where finalists were compared, which was done in format 1."""

    leader: Line
    """The finalist's name; if its gain may be noise the class has the default all the same."""
    gain: float
    low: float
    high: float
    """Of the gain's bootstrap interval by picture."""
    samples: Positive
    chance: Share = Field(gt=0)
    """How often luck alone would show as much: a one-sided p-value."""


class SelectorEntry(Strict):
    """What chooses tokens in the place of the dual-stage selection; rho is 1 then, and means nothing."""

    name: Line
    knobs: dict[Slug, _Knob | tuple[_Knob, ...]] = Field(default={}, max_length=100)
    """All that the selector has, as they were solved for the budget."""

    @classmethod
    def of(cls, choice: SelectorChoice | None) -> "SelectorEntry | None":
        """The entry of a choice."""
        return None if choice is None else cls(name=choice.name, knobs=dict(choice.knobs))

    @property
    def choice(self) -> SelectorChoice:
        """What is recorded here."""
        return SelectorChoice.of(self.name, self.knobs)


class Alternative(Strict):
    """Another way to choose, kept to be compared with."""

    prototype: Line
    layers: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field(min_length=1, max_length=1001)
    weights: tuple[Share, ...] = Field(min_length=1, max_length=1001)
    rho: Share
    seeding: Line | None = None
    """``None``: the manifest's."""
    relevance: Line | None = None
    """``None``: the manifest's."""
    downsample: Smaller | None = None
    selector: SelectorEntry | None = None

    @model_serializer(mode="wrap")
    def _as_written(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_empty(fields(self), _LATER)


class Posterior(Strict):
    """How probable it is of each candidate that it is the best, given the scores that were measured."""

    candidates: tuple[Line, ...] = Field(min_length=1, max_length=100_000)
    probabilities: tuple[Share, ...] = Field(min_length=1, max_length=100_000)
    """In the order of the candidates. They may sum to less than 1: improbable candidates can be left out."""

    @model_validator(mode="after")
    def _distribution(self) -> "Posterior":
        unique("candidate", self.candidates)
        if len(self.probabilities) != len(self.candidates):
            raise ValueError(f"{len(self.probabilities)} probabilities for {len(self.candidates)} candidates")
        if sum(self.probabilities) > 1 + 1e-6:
            raise ValueError(f"the probabilities sum to {sum(self.probabilities):g}, expected 1 or less")
        return self


class Sureness(Strict):
    """How sure the choice of a class is, by the posterior of the candidates' true means."""

    gain: float
    """Of the choice over the default: the posterior mean."""
    low: float
    high: float
    """Of the gain's 95 % interval."""
    worse: Share
    """Probability that the choice is worse than the default."""
    much_worse: Share
    """Probability that it is worse by more than 0.01."""
    regret: Regret
    """How much less than the truly best candidate the choice is expected to score."""
    own: float | None
    """The gain by the class's own paired samples alone; ``None`` if choice and default share no sample."""
    settle: Count | None
    """About how many more samples of the class would settle it; 0 if it is settled, ``None`` if that cannot be said."""
    leader: Line | None = None
    """The candidate of the highest posterior mean, where caution kept the default instead of it."""

    @model_validator(mode="after")
    def _consistent(self) -> "Sureness":
        if self.low > self.high:
            raise ValueError(f"the interval from {self.low:g} to {self.high:g} is empty")
        if self.much_worse > self.worse + 1e-6:
            raise ValueError(f"much_worse: {self.much_worse:g} is more than worse, {self.worse:g}")
        return self


class ClassChoice(Strict):
    """How one class's mixture, and what chooses its tokens, were chosen."""

    prototype: Line
    seeding: Line | None = None
    """What k-means starts from; ``None``: the manifest's."""
    relevance: Line | None = None
    """In the profile ``input``, what rates the tokens; ``None``: the manifest's."""
    downsample: Smaller | None = None
    """Pictures are shown with at most this share of their tokens; ``None``: as they are."""
    selector: SelectorEntry | None = None
    """What chooses tokens in the place of the dual-stage selection, if something does."""
    candidates: Positive
    evaluations: Count
    samples: Count | None = None
    """Of the class, to choose by; so many times the candidates are the evaluations of an exhaustive search."""
    calibration: float | None
    """Mean score of the choice on the class's own samples; ``None`` if it was measured on none."""
    calibration_samples: Count | None = None
    """On how many."""
    default: float | None = None
    """The same of the default: the model's own layer with rho = 1, or with the first selector where ``clasp`` is not
    searched. With other samples the two are not paired."""
    default_samples: Count | None = None
    verdict: Sureness | None = None
    """``None`` if the class had no samples, and in format 1."""
    posterior: Posterior | None = None
    """``None`` if it was not kept."""
    selection: float | None = None
    """In format 1: mean score of the choice on a split where finalists were compared."""
    selection_default: float | None = None
    confirmation: Confirmation | None = None
    refinement: Confirmation | None = None

    @model_serializer(mode="wrap")
    def _as_written(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what belongs to format 1, where there is nothing of it."""
        return _without_empty(fields(self), (*_LATER, *_ONLY_1))


class ChoiceRule(Strict):
    """How the choices of a budget were made."""

    method: Literal["pooled", "james-stein"]
    """The posterior: ``pooled`` over classes, mixtures and ratios, or its closed form for large spaces."""
    regret: Regret
    """Mean over the classes that have a verdict."""
    cautious: Share | None = None
    """The default was kept unless the probability of being worse was under this; ``None``: the best mean was chosen."""
    budgets: tuple[BudgetName, ...] = Field(default=(), max_length=1000)
    """Other budgets whose scores were evidence too."""
    shortlist: tuple[Line, ...] | None = Field(default=None, max_length=1000)
    """Selectors that a first round chose to search beside ``clasp``; ``None`` where the search was told what to try."""

    @model_serializer(mode="wrap")
    def _as_written(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_empty(fields(self), ("shortlist",))


def _without_empty(fields: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """So that artifacts that have no such field keep their bytes."""
    return {name: value for name, value in fields.items() if value is not None or name not in names}


def mean_regret(choices: Iterable[ClassChoice]) -> float:
    """Of the choices that have a verdict; 0 if none has."""
    regrets = [choice.verdict.regret for choice in choices if choice.verdict]
    return math.fsum(regrets) / len(regrets) if regrets else 0.0


def unique(what: str, names: Iterable[str]) -> None:
    """Refuse names that occur twice.

    Raises:
        ValueError: naming the first.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the {what} {name!r} is listed more than once")
        seen.add(name)
