"""Which candidate a class gets, and how sure that is: the highest posterior mean, read off draws from the posterior.

Shapes: K classes, C candidates, n samples of a class, D draws.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.search.belief import Belief
from clasp_calib.search.noise import Floats

DEFAULT = 0
"""Index of the candidate that stands for doing nothing."""
DRAWS = 4000
"""From the posterior of each class: a probability of 10 % is then known to half a per cent."""
POINT, SETTLED = 0.01, 0.005
"""One point of the score, and the expected regret under which nothing is left to decide."""
MORE = np.unique(np.geomspace(4, 1e6, 60).round().astype(int)).tolist()
"""Numbers of further samples that are tried."""


@dataclass(frozen=True)
class Verdict:
    """The choice of one class. Gains are over the default, in units of the score.

    Attributes:
        candidate: the choice.
        leader: the highest posterior mean, which is the choice unless caution was asked for.
        gain: of the choice, posterior mean.
        low: its 95 % interval, lower end.
        high: upper end.
        worse: probability that the choice is worse than the default.
        much_worse: probability that it is worse by more than a point (0.01).
        regret: what the best candidate is expected to be better by than the choice.
        own: gain in the class's own samples alone, where both were measured; ``None``: nowhere.
        settle: about how many more samples of the class would bring the regret under half a point: 0 if it is;
            ``None``: no number up to a million would.
        probabilities: [C], of being the best.
    """

    candidate: int
    leader: int
    gain: float
    low: float
    high: float
    worse: float
    much_worse: float
    regret: float
    own: float | None
    settle: int | None
    probabilities: tuple[float, ...]


def decide(belief: Belief, tables: Sequence[Floats], cautious: float | None = None) -> list[Verdict]:
    """The verdict of every class.

    Args:
        belief: what ``tables`` say.
        tables: K tables [n, C], as `clasp_calib.search.belief.believe` got them.
        cautious: the default is kept unless the leader's probability of being worse is less than this.
    """
    return [_verdict(belief, table, group, cautious) for group, table in enumerate(tables)]


def _verdict(belief: Belief, table: Floats, group: int, cautious: float | None) -> Verdict:
    generator = np.random.default_rng(0)
    draws = belief.draws(DRAWS, group, generator)
    leader = choice = belief.leader(group)
    if cautious is not None and (draws[:, leader] < draws[:, DEFAULT]).mean() >= cautious:
        choice = DEFAULT
    gains = draws[:, choice] - draws[:, DEFAULT]
    low, high = np.quantile(gains, [0.025, 0.975])
    regret = float((draws.max(1) - draws[:, choice]).mean())
    best = np.bincount(draws.argmax(1), minlength=draws.shape[1]) / len(draws)
    return Verdict(
        candidate=choice,
        leader=leader,
        gain=float(belief.mean[group, choice] - belief.mean[group, DEFAULT]),
        low=float(low),
        high=float(high),
        worse=float((gains < 0).mean()),
        much_worse=float((gains < -POINT).mean()),
        regret=regret,
        own=_own(table, choice),
        settle=0 if regret < SETTLED else _settle(draws, belief.noise(group), generator),
        probabilities=tuple(best.tolist()),
    )


def _own(table: Floats, choice: int) -> float | None:
    gains = table[:, choice] - table[:, DEFAULT]
    gains = gains[~np.isnan(gains)]
    return float(gains.mean()) if len(gains) else None


def _settle(draws: Floats, noise: Floats, generator: np.random.Generator) -> int | None:
    """How many more samples, with all candidates on each, would bring the expected regret under `SETTLED`.

    The draws stand for what may be true. Further samples are simulated for each of them, the posterior, taken for
    normal, is updated, and the candidate that would then be chosen is compared with the best.

    Args:
        draws: [D, C], centred on a mean that is taken for the posterior's.
        noise: [C, C] covariance of one sample's scores, whose level is free; [], the variance of each, where candidates
            are independent and so many that the level is known.
        generator: of the randomness.
    """
    mean = draws.mean(0)
    if noise.ndim:
        white, colour = _axes(noise)
        apart = (draws - mean) @ white
        gains, axes = np.linalg.eigh(apart.T @ apart / len(draws))
        true, back = apart @ axes, axes.T @ colour.T
    else:
        true = (draws - mean) / np.sqrt(noise)
        gains = true.var(0)
    luck = generator.standard_normal(true.shape)

    def settled(more: int) -> bool:
        surer = gains / (gains + 1 / more) * (true + luck / np.sqrt(more))
        believed = mean + (surer @ back if noise.ndim else surer * np.sqrt(noise))
        chosen = draws[np.arange(len(draws)), believed.argmax(1)]
        return float((draws.max(1) - chosen).mean()) < SETTLED

    number = bisect_left(MORE, True, key=settled)
    return MORE[number] if number < len(MORE) else None


def _axes(noise: Floats) -> tuple[Floats, Floats]:
    """[C, m] each: what makes differences between candidates of this noise white, and the way back."""
    count = len(noise)
    centre = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(centre @ noise @ centre)
    known = values > 1e-9 * values[-1]
    return vectors[:, known] / np.sqrt(values[known]), vectors[:, known] * np.sqrt(values[known])
