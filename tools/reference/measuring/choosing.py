"""What is chosen on the selection split: ratios, mixtures, and the pairs of classes to compare on test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

FEW = 64
"""The small budget at which rho is to matter too."""


@dataclass(frozen=True)
class Choices:
    """Decided on one split, to be judged on another."""

    best: Mapping[int, Mapping[str, float]]
    """Budget -> class -> the ratio of highest accuracy; the lowest of several."""
    worst: Mapping[int, Mapping[str, float]]
    wide: int
    """Of the larger budgets the one where best and worst are farther apart, mean over classes."""
    pairs: Mapping[int, tuple[str, str]]
    """Budget -> the two classes each of which loses most by the other's best ratio (the lesser loss counts)."""
    mixture: Mapping[str, str]
    """Class -> the best mixture but for the model's own layer."""
    mixtures: tuple[str, ...]
    """All that it was chosen from."""

    @property
    def rho_budgets(self) -> tuple[int, int]:
        """The budgets at which rho is judged."""
        return self.wide, FEW


def choose(
    by_rho: Callable[[int, float, str], float],
    by_mixture: Callable[[str, str], float],
    budgets: Sequence[int],
    rhos: Sequence[float],
    mixtures: Sequence[str],
    classes: Sequence[str],
) -> Choices:
    """Choose by accuracies on the selection split.

    Args:
        by_rho: accuracy of the own layer, given budget, ratio and class.
        by_mixture: accuracy, given mixture and class.
        budgets: from large to small; `FEW` among them.
        rhos: ratios to choose from.
        mixtures: mixtures to choose from.
        classes: at least two.
    """
    best: dict[int, dict[str, float]] = {}
    worst: dict[int, dict[str, float]] = {}
    spread: dict[int, float] = {}
    for budget in budgets:
        accuracy = {label: {rho: by_rho(budget, rho, label) for rho in rhos} for label in classes}
        best[budget] = {label: max(of, key=lambda rho: of[rho]) for label, of in accuracy.items()}
        worst[budget] = {label: min(of, key=lambda rho: of[rho]) for label, of in accuracy.items()}
        spread[budget] = sum(max(of.values()) - min(of.values()) for of in accuracy.values())
    wide = max((budget for budget in budgets if budget != FEW), key=lambda budget: spread[budget])

    def loss(budget: int, label: str, other: str) -> float:
        own, others = best[budget][label], best[budget][other]
        return by_rho(budget, own, label) - by_rho(budget, others, label)

    pairs = {
        budget: max(combinations(classes, 2), key=lambda pair: min(loss(budget, *pair), loss(budget, *reversed(pair))))
        for budget in (wide, FEW)
    }
    mixture = {label: max(mixtures, key=lambda name: by_mixture(name, label)) for label in classes}
    return Choices(best, worst, wide, pairs, mixture, tuple(mixtures))
