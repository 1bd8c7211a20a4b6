"""What was chosen for a class, and on what evidence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.strategies.strategy import DEFAULT
from clasp_calib.search.verdict import Verdict


@dataclass(frozen=True)
class Course:
    """How far one candidate came: its scores on the samples that it was measured on, in their order."""

    candidate: Candidate
    scores: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """``None`` where it was not measured: what is believed of it comes from neighbours and other classes."""
        return float(np.mean(self.scores)) if self.scores else None


@dataclass(frozen=True)
class Choice:
    """What was found for a class."""

    verdict: Verdict
    """Its numbers of candidates are places in ``courses``."""
    courses: tuple[Course, ...]
    """Of all candidates: the first is the default, those that were tuned come behind the space."""
    samples: int
    """That there are of the class."""
    space: int
    """Candidates of the space."""

    @property
    def candidate(self) -> Candidate:
        """The choice."""
        return self.courses[self.verdict.candidate].candidate

    @property
    def leader(self) -> Candidate:
        """The candidate of the highest posterior mean, which caution may have passed over."""
        return self.courses[self.verdict.leader].candidate

    @property
    def chosen(self) -> Course:
        """The course of the choice."""
        return self.courses[self.verdict.candidate]

    @property
    def default(self) -> Course:
        """The course of the default."""
        return self.courses[DEFAULT]

    @property
    def evaluations(self) -> int:
        """One candidate on one sample each."""
        return sum(len(course.scores) for course in self.courses)

    @property
    def exhaustive(self) -> int:
        """Evaluations that measuring all of the space on every sample takes."""
        return self.samples * self.space

    @property
    def summary(self) -> dict[str, Any]:
        """What was chosen on what evidence, for JSON."""
        told = asdict(self.verdict)
        del told["probabilities"]
        return {
            **told,
            "candidate": self.candidate.name,
            "leader": self.leader.name,
            "calibration": self.chosen.mean,
            "calibration_samples": len(self.chosen.scores),
            "default": self.default.mean,
            "default_samples": len(self.default.scores),
            "refined": self.verdict.candidate >= self.space,
            "evaluations": self.evaluations,
            "exhaustive": self.exhaustive,
        }


@dataclass(frozen=True)
class Found:
    """What the search at one budget found.

    Attributes:
        choices: by class.
        everywhere: the best single setting for all classes: of the highest mean of the classes' posterior means.
        exhaustive: what all scores would have chosen, by class; empty if not all are known.
        method: of the belief.
        fed: other budgets whose scores were evidence too.
    """

    choices: dict[str, Choice]
    everywhere: Candidate
    exhaustive: dict[str, Candidate]
    method: Literal["pooled", "james-stein"]
    fed: Sequence[str]
