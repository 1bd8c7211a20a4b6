"""One class's search at one budget: a race on calibration samples, and a final on samples of another split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.calib.candidate import Candidate
from clasp_calib.calib.evaluator import Evaluator, Pruning
from clasp_calib.common.samples import Sample
from clasp_calib.search.ledger import Ledger
from clasp_calib.search.strategies.base import DEFAULT, Observations, Problem, Strategy

SELECTION = 1_000_000
"""Ledger steps of selection samples start here, behind all calibration samples."""
FINALISTS = 3
"""Candidates compared in the final, beside the default. Our choice: each more costs one evaluation a sample."""


@dataclass(frozen=True)
class Course:
    """How far one candidate came: its scores on the calibration samples, and those on the selection samples."""

    candidate: Candidate
    calibration: tuple[float, ...]
    selection: tuple[float, ...]


@dataclass(frozen=True)
class Choice:
    """What was found for a class, and on what evidence."""

    winner: int
    courses: tuple[Course, ...]
    """Of all candidates; the first is the default."""

    @property
    def candidate(self) -> Candidate:
        """The winner."""
        return self.courses[self.winner].candidate

    @property
    def evaluations(self) -> int:
        """Scores that were needed."""
        return sum(len(course.calibration) + len(course.selection) for course in self.courses)

    @property
    def calibration(self) -> float:
        """Mean score of the choice where the candidates raced."""
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


def search_class(
    evaluator: Evaluator,
    pruning: Pruning,
    candidates: Sequence[Candidate],
    calibration: Sequence[Sample],
    selection: Sequence[Sample],
    ledger: Ledger,
    strategy: Strategy,
    seed: int = 0,
    tick: Callable[[int], None] = lambda evaluations: None,
) -> Choice:
    """Find the best candidate for one class.

    A candidate other than the default is chosen only if it beats the default on the selection samples, which the
    strategy has not seen. Without selection samples the strategy decides.

    Args:
        evaluator: scores candidates.
        pruning: the budget's schedule and settings.
        candidates: the first is the default.
        calibration: samples to search on, in their order.
        selection: samples of another split.
        ledger: where scores are recorded; what it holds is not measured again.
        strategy: what is measured on which samples.
        seed: of the strategy.
        tick: told how many evaluations each step has answered.
    """
    told: set[tuple[int, int]] = set()

    def measure(sample: Sample, step: int, live: Sequence[int]) -> list[float]:
        known = ledger.known(step)
        unknown = [c for c in live if c not in known]
        if unknown:
            scores = evaluator.scores(sample, [candidates[c] for c in unknown], pruning).score
            ledger.record(step, dict(zip(unknown, scores, strict=True)))
            known = ledger.known(step)
        tick(len({(step, c) for c in live} - told))
        told.update((step, c) for c in live)
        return [known[c] for c in live]

    def observe(samples: Sequence[int], live: Sequence[int]) -> Observations:
        return Observations(np.array([measure(calibration[step], step, live) for step in samples]))

    def reject(rejected: Sequence[int]) -> None:
        for candidate in rejected:
            ledger.reject(candidate)

    ranked = strategy.search(Problem(candidates, len(calibration), observe, seed, reject))
    finalists = sorted({*ranked[:FINALISTS], DEFAULT})
    final: dict[int, list[float]] = {c: [] for c in finalists}
    for number, sample in enumerate(selection):
        for candidate, score in zip(finalists, measure(sample, SELECTION + number, finalists), strict=True):
            final[candidate].append(score)
    scores = {c: ledger.scores(c, range(len(calibration))) for c in range(len(candidates))}
    winner = _winner(finalists, scores, final) if selection else ranked[0]
    for candidate in ranked:
        ledger.complete(candidate, _mean(scores[candidate]))
    courses = (Course(one, tuple(scores[c]), tuple(final.get(c, ()))) for c, one in enumerate(candidates))
    return Choice(winner, tuple(courses))


def _winner(finalists: Sequence[int], raced: dict[int, list[float]], final: dict[int, list[float]]) -> int:
    better = [c for c in finalists if _mean(final[c]) > _mean(final[DEFAULT])]
    if not better:
        return DEFAULT
    return max(better, key=lambda c: (_mean(raced[c] + final[c]), -c))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
