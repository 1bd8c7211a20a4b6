"""What a strategy gets, and what it is asked for.

A strategy decides which candidates are measured on which samples, for all classes of one budget. It knows nothing of
models, files or processes: it asks `Problem.measure`, and its questions may depend on nothing but the answers, the
problem and its own settings. So a killed search is taken up by asking again: what was measured before is answered from
the journal. Which candidate is chosen is not a strategy's business, but that of the belief in all that it asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.belief import Belief

DEFAULT = 0
"""Index of the candidate that stands for doing nothing: the model's own layer with rho = 1, or with the first selector
where ``clasp`` is not searched."""


@dataclass(frozen=True)
class Ask:
    """What a strategy wants to know: these candidates on these samples of a class, all of them on each."""

    label: str
    samples: Sequence[int]
    """Indices in the class's one order."""
    live: Sequence[int]
    """Indices of candidates."""


@dataclass(frozen=True)
class Observations:
    """What samples say of candidates.

    ``score`` is [n, m], what is maximised: in [0, 1] where it is a metric. ``nll`` is [n, m], the answer's negative
    log-likelihood in nats, or ``None`` where it is not known.
    """

    score: NDArray[np.float64]
    nll: NDArray[np.float64] | None = None


class Measure(Protocol):
    """Measures what is asked, all at once; asking again for what was measured costs nothing."""

    def __call__(self, asks: Sequence[Ask], /) -> list[Observations]:
        """One answer an ask, of shape [len(ask.samples), len(ask.live)]."""
        ...


def _nobody(label: str, candidates: Sequence[int]) -> None:
    """Tells nobody of a rejection."""


@dataclass(frozen=True)
class Problem:
    """The search of all classes at one budget.

    Attributes:
        candidates: what there is to choose from; number 0 is the default.
        samples: class -> how many samples it has, numbered in an order that was shuffled once.
        measure: measures.
        belief: gives the belief in all that was measured so far; its classes are those of ``samples``, in their order.
        reject: told of candidates of a class that will not be measured any more.
        seed: of whatever a strategy draws.
        costs: of an evaluation of each candidate, in those of the cheapest; empty: all cost as much.
    """

    candidates: Sequence[Candidate]
    samples: Mapping[str, int]
    measure: Measure
    belief: Callable[[], Belief]
    reject: Callable[[str, Sequence[int]], None] = _nobody
    seed: int = 0
    costs: Sequence[float] = ()


class Strategy(Protocol):
    """A frozen dataclass of a strategy's settings: with equal settings and equal answers it asks the same."""

    def search(self, problem: Problem) -> None:
        """Ask what is worth knowing."""
        ...

    def most(self, candidates: int, samples: int) -> int:
        """The most evaluations of a class that it takes, one candidate on one sample each."""
        return candidates * samples


def ranked(candidates: Sequence[int], scores: NDArray[np.float64]) -> list[int]:
    """Candidates by their mean over ``scores [n, m]``, best first; of equal ones the lower number first."""
    totals = scores.sum(0)
    return [candidates[place] for place in sorted(range(len(candidates)), key=lambda p: (-totals[p], candidates[p]))]
