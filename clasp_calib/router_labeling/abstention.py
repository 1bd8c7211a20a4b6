"""When a router should rather say "default": the threshold that costs least, and what each threshold would cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.router_labeling.router import softmax

WRONG_COST = 3.0
"""Our choice: what a wrong class costs, where sending a question to the default class costs 1.

In Table 22 of the paper, the worst row of random classes loses 1.7 to 3.3 times what the worst row of forced defaults
loses; the shares of questions that the rows stand for are lost.
"""
NOWHERE = -1
"""The place of a default class that there is not."""


@dataclass(frozen=True)
class TradeOff:
    """What each threshold leads to, on held-out questions; all arrays ``[thresholds]``, shares in [0, 1]."""

    thresholds: NDArray[np.float64]
    abstained: NDArray[np.float64]
    """Share that is sent to the default class for lack of confidence."""
    wrong: NDArray[np.float64]
    """Share that gets a class other than its own and than the default one."""
    right: NDArray[np.float64]
    cost: NDArray[np.float64]
    """Mean cost of a question."""

    @property
    def best(self) -> int:
        """The place of the lowest threshold of least cost."""
        return int(np.flatnonzero(self.cost <= self.cost.min() + 1e-12)[0])


def trade_off(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], default: int | None, wrong_cost: float = WRONG_COST
) -> TradeOff:
    """What abstaining below each of 101 thresholds would have cost.

    Right costs 0, the default class instead of another 1, and any other wrong class ``wrong_cost``.

    Args:
        probabilities: ``[questions, classes]``, calibrated, of questions that the model was not trained on.
        truth: ``[questions]``, the place of each question's class.
        default: the place of the default class; ``None``: there is none, and nothing can be abstained from.
        wrong_cost: 1 or more.
    """
    likeliest, confidence = probabilities.argmax(1), probabilities.max(1)
    thresholds = np.linspace(0, 1, 101)
    default = NOWHERE if default is None else default
    abstains = (confidence[None] < thresholds[:, None]) & (default != NOWHERE) & (likeliest != default)[None]
    given = np.where(abstains, default, likeliest[None])
    right = given == truth[None]
    wrong = ~right & (given != default)
    cost = np.where(right, 0.0, np.where(wrong, wrong_cost, 1.0))
    return TradeOff(thresholds, abstains.mean(1), wrong.mean(1), right.mean(1), cost.mean(1))


def best_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The temperature between 0.02 and 50 under which held-out logits give their truth the largest likelihood.

    Temperature scaling: https://arxiv.org/abs/1706.04599. The loss is convex in the inverse temperature; its slope is
    the mean logit under the softmax less the mean logit of the truth. As in Platt's scaling, one question more a class
    is counted as being of it whatever its logits: from few questions that are all told apart, nobody can be certain.

    Args:
        logits: ``[questions, classes]``.
        truth: ``[questions]``, the place of each question's class.
    """
    scores = np.asarray(logits, np.float64)
    questions, classes = scores.shape
    reached = (scores[np.arange(questions), truth].sum() + scores.mean(0).sum()) / (questions + classes)
    low, high = 1 / 50, 50.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        if (softmax(scores, 1 / middle) * scores).sum(1).mean() > reached:
            high = middle
        else:
            low = middle
    return float(round(1 / low, 4))


def log_loss(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Mean negative log-probability of the truth, in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300)).mean())


def calibration_error(probabilities: NDArray[np.float64], truth: NDArray[np.int64], bins: int = 10) -> float:
    """Expected calibration error of the likeliest class, in [0, 1]; see `confidence_error`."""
    return confidence_error(probabilities.max(1), probabilities.argmax(1) == truth, bins)


def confidence_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, in bins of equal width, in [0, 1].

    Args:
        confidence: ``[questions]``, in [0, 1].
        right: ``[questions]``
        bins: how many.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[place == b].sum() - right[place == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(right))
