"""Solving a knob whose number of tokens depends on the image, and saying how much it then varies."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, pstdev
from typing import Any, Self

from torch import nn

from clasp_calib.baselines.method import Method
from clasp_calib.common.errors import BudgetError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.schedule import Budget

HALVINGS, STEPS, SLACK, NEAR = 40, 200, 1.0, 0.05
OFF = 0.05
"""Share of the budget by which a mean may be off without a word."""
SURE = 1.96
"""Standard errors within which a mean is 19 times of 20."""


@dataclass(frozen=True)
class Spread:
    """How the number of tokens varies over the images that a knob was solved on."""

    mean: float
    deviation: float
    least: float
    most: float
    images: int

    @property
    def needed(self) -> int:
        """Images to solve on for a mean that on others like them is within `OFF` of the budget, 19 times of 20."""
        return ceil((SURE * self.deviation / (OFF * self.mean)) ** 2)

    def __str__(self) -> str:
        return (
            f"{self.mean:.2f} tokens on {self.images} images, standard deviation {self.deviation:.2f}, "
            f"from {self.least:g} to {self.most:g} (to be sure of {OFF:.0%}: {self.needed} images)"
        )


@dataclass(frozen=True)
class ImageDependent(Method):
    """A method with knobs that are solved on images, where a budget is met in the mean."""

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """Refused: see `calibrated`."""
        raise BudgetError(
            f"the knobs of {self.name} follow from what is in images; solve them on images of yours first, "
            f"method, spread = {type(self).__name__}().calibrated(model, images, budget='{budget.name}'), "
            "and apply the method that comes out with native='default'"
        )

    @abstractmethod
    def calibrated(
        self, model: nn.Module, images: Iterable[Mapping[str, Any]], budget: str | int
    ) -> tuple[Self, Spread]:
        """The method with its knob solved so that these images have as many tokens in the mean as ``budget`` says.

        Args:
            model: what the method is for.
            images: arguments of ``forward``, each a prompt with one picture.
            budget: see `Method`.

        Returns:
            The method, to be applied with ``native='default'``, and how the number of tokens varies.

        Raises:
            BudgetError: no knob comes within one token of the budget.
            ModelError: the model lacks what the method needs, or cannot be pruned.
        """


def spread_of(tokens: Sequence[float]) -> Spread:
    """Of the numbers of tokens of images."""
    return Spread(fmean(tokens), pstdev(tokens), min(tokens), max(tokens), len(tokens))


def solve_knob(
    tokens_at: Callable[[float], Sequence[float]],
    wanted: float,
    low: float,
    high: float,
    what: str,
    near: float = NEAR,
    steps: int = STEPS,
) -> tuple[float, Spread]:
    """The knob at which images have ``wanted`` tokens in the mean, to within one.

    By halving, as if the number fell as the knob rises; where it does so only by and large, the neighbourhood of
    what that finds is searched as well.

    Args:
        tokens_at: numbers of tokens of all images at a knob.
        wanted: their mean.
        low: knob with the most tokens.
        high: with the fewest.
        what: name of method and knob, for the error.
        near: tokens from the mean at which no better knob is looked for.
        steps: how many knobs are tried to either side where the number does not simply fall; 0 if it does.

    Raises:
        BudgetError: no knob comes so near.
    """
    tried: dict[float, float] = {}

    def over(knob: float) -> float:
        tried[knob] = fmean(tokens_at(knob)) - wanted
        return tried[knob]

    below, above = low, high
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        below, above = (middle, above) if over(middle) > 0 else (below, middle)
        if abs(tried[middle]) <= near:
            break
    best = min(tried, key=lambda knob: (abs(tried[knob]), knob))
    if abs(tried[best]) > SLACK:
        width = (high - low) / 20
        for step in range(-steps, steps + 1):
            over(best + width * step / max(steps, 1))
        best = min(tried, key=lambda knob: (abs(tried[knob]), knob))
    spread = spread_of(tokens_at(best))
    if abs(tried[best]) > SLACK:
        raise BudgetError(
            f"no {what} brings these images to {wanted:.2f} tokens in the mean: the nearest is {best:.4g} with "
            f"{spread}; give more images, or another budget"
        )
    return best, spread
