"""One class's search at one budget: a strategy on calibration samples, and a final on samples of another split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.studies.intervals import Clusters, Interval, Kind, interval
from clasp_calib.search.confirm import FINALISTS, LEVEL, chance
from clasp_calib.search.measuring import Measuring
from clasp_calib.search.refine import refined_from
from clasp_calib.search.strategies.strategy import DEFAULT, Problem, Strategy


@dataclass(frozen=True)
class Course:
    """How far one candidate came: its scores on the calibration samples, and those on the selection samples."""

    candidate: Candidate
    calibration: tuple[float, ...]
    selection: tuple[float, ...]


@dataclass(frozen=True)
class Gain:
    """What the leader of the final scored above the default on the selection samples."""

    interval: Interval
    """By picture."""
    chance: float
    """See `clasp_calib.search.confirm.chance`."""

    @property
    def is_noise(self) -> bool:
        """Whether luck gives as much too often."""
        return self.chance > LEVEL


@dataclass(frozen=True)
class Choice:
    """What was found for a class, and on what evidence."""

    leader: int
    """The best of the finalists; the default if it was the only one."""
    courses: tuple[Course, ...]
    """Of all candidates; the first is the default."""
    gain: Gain | None
    """Of the leader; ``None`` if it is the default, or if there were no selection samples."""
    evaluations: int = 0
    """One candidate on one sample each."""
    comparable: bool = True
    """Whether scores on both splits are of one kind."""
    refined: int | None = None
    """The candidate that coordinate search made of the strategy's winner, if it was asked to and found one."""
    refinement: Gain | None = None
    """Its gain over what would be chosen without it."""

    @property
    def winner(self) -> int:
        """What was refined, if that is surely better; else the leader, or the default if its gain may be noise."""
        if self.refined is not None and self.refinement and not self.refinement.is_noise:
            return self.refined
        return self.unrefined

    @property
    def unrefined(self) -> int:
        """The winner without refinement."""
        return DEFAULT if self.gain and self.gain.is_noise else self.leader

    @property
    def candidate(self) -> Candidate:
        """The winner."""
        return self.courses[self.winner].candidate

    @property
    def best(self) -> Candidate:
        """The leader or the default, whichever has the higher mean, whatever luck may have done."""
        both = (self.courses[DEFAULT], self.courses[self.leader])
        pooled = {c: _pooled(of, self.comparable) for c, of in zip((DEFAULT, self.leader), both, strict=True)}
        return self.courses[max(pooled, key=lambda c: (pooled[c], c == DEFAULT))].candidate

    @property
    def summary(self) -> dict[str, Any]:
        """What was chosen on what evidence, for JSON."""
        return {
            "candidate": self.candidate.name,
            "leader": self.courses[self.leader].candidate.name,
            "calibration": self.calibration,
            "selection": self.selection,
            "selection_default": self.selection_default,
            "gain": self.gain and {**vars(self.gain.interval), "chance": self.gain.chance, "noise": self.gain.is_noise},
            "refined": self.refined is not None and self.winner == self.refined,
            "evaluations": self.evaluations,
        }

    @property
    def calibration(self) -> float:
        """Mean score of the choice on the calibration samples that it was measured on."""
        return _mean(self.courses[self.winner].calibration)

    @property
    def selection(self) -> float | None:
        """Mean score of the choice in the final; ``None`` without selection samples."""
        final = self.courses[self.winner].selection
        return _mean(final) if final else None

    @property
    def selection_default(self) -> float | None:
        """Mean score of the default in the final; ``None`` without selection samples."""
        default = self.courses[DEFAULT].selection
        return _mean(default) if default else None


@dataclass(frozen=True)
class ClassScores:
    """All that a choice is made from.

    Attributes:
        candidates: of the class; the first is the default.
        calibration: candidate -> its scores on the calibration samples, as far as it came.
        finalists: candidates that were compared on the selection samples, ascending; one that was refined may follow.
        selection: ``[n, f]``, what they scored there.
        pictures: of the selection samples.
        comparable: whether scores on both splits are of one kind.
    """

    candidates: Sequence[Candidate]
    calibration: Mapping[int, Sequence[float]]
    finalists: Sequence[int]
    selection: NDArray[np.float64]
    pictures: Sequence[str]
    comparable: bool

    def course(self, candidate: int) -> Course:
        """How far a candidate came."""
        final = self.selection[:, self.finalists.index(candidate)].tolist() if candidate in self.finalists else []
        return Course(self.candidates[candidate], tuple(self.calibration.get(candidate, ())), tuple(final))

    def gain(self, candidates: Sequence[int], over: int, leader: int, seed: int) -> Gain:
        """What one of some candidates scored above another on the selection samples."""
        columns = [self.finalists.index(candidate) for candidate in candidates]
        gains = self.selection[:, columns] - self.selection[:, [self.finalists.index(over)]]
        place = list(candidates).index(leader)
        shares = self.selection.min() >= 0 and self.selection.max() <= 1
        kind: Kind = "gains" if shares else "other"
        return Gain(
            interval(gains[:, place], Clusters.of(self.pictures, seed), kind), chance(gains, place, self.pictures, seed)
        )


def finalists_of(ranked: Sequence[int]) -> list[int]:
    """Those who are compared in the final, of candidates in a strategy's order."""
    return sorted({*ranked[:FINALISTS], DEFAULT})


def search_class(measuring: Measuring, strategy: Strategy, seed: int, refine: bool = False) -> Choice:
    """Find the best candidate for one class.

    The best finalist is chosen if its gain over the default on the selection samples, which the strategy has not seen,
    is more than noise; else the default is. Without selection samples the strategy decides.

    Args:
        measuring: of the class.
        strategy: what is measured on which samples.
        seed: of the strategy and of the final's resampling.
        refine: also tune the strategy's winner; what comes of it is chosen only if it surely gains over the choice
            without it on the selection samples, which it was not tuned on. Without such samples it is not tried.
    """
    candidates, part = measuring.candidates, measuring.part
    ranked = strategy.search(Problem(candidates, len(part.calibration), measuring.observe, seed, measuring.reject))
    refined = refined_from(measuring, ranked[0]) if refine and part.selection else None
    tuned = [] if refined is None else [refined]
    asked = [*finalists_of(ranked), *tuned]
    scores = measuring.final(asked)
    for candidate in (*ranked, *tuned):
        measuring.shown.complete(candidates[candidate], _mean(measuring.scores[candidate]))
    pictures = [sample.cluster for sample in part.selection]
    comparable = measuring.desk.comparable(measuring.label)
    measured = ClassScores(candidates, measuring.scores, asked, scores, pictures, comparable)
    return replace(choose(measured, ranked[0], seed, refined), evaluations=measuring.evaluations)


def choose(measured: ClassScores, best: int, seed: int, refined: int | None = None) -> Choice:
    """The choice that scores lead to.

    Args:
        measured: the scores.
        best: the strategy's winner, which decides where there are no selection samples.
        seed: of the resampling.
        refined: the candidate that was tuned, if one was.
    """
    finalists = [candidate for candidate in measured.finalists if candidate != refined]
    leader, gain = best, None
    if len(measured.selection):
        pooled = {c: _pooled(measured.course(c), measured.comparable) for c in finalists}
        # The default leads only if it is alone: whether to leave it comes after.
        leader = max(finalists, key=lambda c: (c != DEFAULT, pooled[c], -c))
        if leader != DEFAULT:
            gain = measured.gain([c for c in finalists if c != DEFAULT], DEFAULT, leader, seed)
    courses = tuple(map(measured.course, range(len(measured.candidates))))
    choice = Choice(leader, courses, gain, comparable=measured.comparable)
    if refined is None:
        return choice
    return replace(choice, refined=refined, refinement=measured.gain([refined], choice.unrefined, refined, seed))


def _pooled(course: Course, comparable: bool) -> float:
    """Mean over both splits; over the selection split alone where scores on the other are of another kind."""
    return _mean([*course.calibration, *course.selection] if comparable or not course.selection else course.selection)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
