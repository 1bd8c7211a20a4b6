"""What a strategy gets, and what it gives back.

A strategy decides which candidates of a class are measured on which of its calibration samples. It knows nothing of
models, files or processes: it asks `Problem.measure`, and its questions may depend on nothing but the answers, the
problem and its own settings. So a killed search is taken up by asking again: what was measured before is answered from
the journal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate

DEFAULT = 0
"""Index of the candidate that stands for doing nothing: the model's own layer, rho = 1."""


@dataclass(frozen=True)
class Observations:
    """What one block of samples says of the live candidates.

    ``score`` is [n, m] in [0, 1], the metric; ``nll`` is [n, m], the answer's negative log-likelihood in nats, or
    ``None`` where it is not known.
    """

    score: NDArray[np.float64]
    nll: NDArray[np.float64] | None = None


class Measure(Protocol):
    """Measures the candidates ``live`` on the samples ``samples`` (indices in their one order)."""

    def __call__(self, samples: range, live: Sequence[int]) -> Observations:
        """Observations of shape [len(samples), len(live)]."""
        ...


def _nobody(candidates: Sequence[int]) -> None:
    """Tells nobody of a rejection."""


@dataclass(frozen=True)
class Problem:
    """The search of one class.

    Attributes:
        candidates: what there is to choose from; number 0 is the default and is measured as long as any other is.
        samples: how many calibration samples there are, numbered in an order that was shuffled once.
        measure: measures. Asking again for what was measured costs nothing.
        seed: of whatever a strategy draws.
        reject: told of candidates that will not be measured any more.
    """

    candidates: Sequence[Candidate]
    samples: int
    measure: Measure
    seed: int = 0
    reject: Callable[[Sequence[int]], None] = _nobody


class Strategy(Protocol):
    """A frozen dataclass of a strategy's settings: with equal settings and equal answers it asks the same."""

    def search(self, problem: Problem) -> list[int]:
        """The candidates that deserve to be compared in the final, best first.

        Each of them, and the default, must have been measured on the same samples.
        """
        ...

    def most(self, candidates: int, samples: int) -> int:
        """The most evaluations that it takes, one candidate on one sample each: all of them, unless it says less."""
        return candidates * samples


def ranked(candidates: Sequence[int], scores: NDArray[np.float64]) -> list[int]:
    """Candidates by their mean over ``scores [n, m]``, best first; of equal ones the lower number first."""
    totals = scores.sum(0)
    return [candidates[place] for place in sorted(range(len(candidates)), key=lambda p: (-totals[p], candidates[p]))]
