"""One class's questions, answered: from the journal what is known, by workers what is not; all of it recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.objective import METRIC
from clasp_calib.common.samples import Sample
from clasp_calib.search.confirm import FINALISTS
from clasp_calib.search.optuna_study import Study
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.strategies.strategy import Observations
from clasp_calib.search.tasks import Task, Workers
from clasp_calib.search.watchers import Block, Outline, Watcher

BLOCK = 32
"""Samples between two reports. Our choice: a database takes milliseconds a report, and there is one a candidate."""


@dataclass
class Measuring:
    """Measures the candidates of one class at one budget.

    Attributes:
        budget: name of the budget.
        label: of the class.
        study: name of the study in the journal.
        candidates: what numbers stand for; more may be added.
        calibration: samples that strategies ask about, in their order.
        selection: samples of the final.
        pruning: the budget's schedule and settings.
        objective: what `observe` gives.
        journal: where scores are kept.
        shown: where they are shown.
        workers: who scores.
        watcher: who is told of progress.
    """

    budget: str
    label: str
    study: str
    candidates: list[Candidate]
    calibration: Sequence[Sample]
    selection: Sequence[Sample]
    pruning: Pruning
    objective: str
    journal: ScoreJournal
    shown: Study
    workers: Workers
    watcher: Watcher
    evaluations: int = 0
    """One candidate on one sample each, answered from wherever; the same pair counts once."""
    scores: dict[int, list[float]] = field(default_factory=dict)
    """Candidate -> its scores on the calibration samples so far, in their order."""
    live: set[int] = field(init=False)
    space: int = field(init=False)
    """Candidates at the start."""

    @property
    def outline(self) -> Outline:
        """In numbers."""
        final = len(self.selection) * min(self.space, FINALISTS + 1)
        return Outline(self.budget, self.label, self.space, len(self.calibration), final)

    def __post_init__(self) -> None:
        self.live = set(range(len(self.candidates)))
        self.space = len(self.candidates)

    @property
    def decoded(self) -> bool:
        """Whether the final is decoded and scored by the metrics; without answers it is scored by the objective."""
        return all(sample.answers for sample in self.selection)

    @property
    def comparable(self) -> bool:
        """Whether scores on both splits are of one kind."""
        return self.objective == METRIC or not self.decoded

    def observe(self, samples: range, live: Sequence[int]) -> Observations:
        """What a strategy asks: see `clasp_calib.search.strategies.strategy`. Samples are asked for in their order."""
        parts = []
        for start in range(0, len(samples), BLOCK):
            part = samples[start : start + BLOCK]
            parts.append(self._scored([self.calibration[s] for s in part], live, generate=False))
            self._tell(part, live, parts[-1].score)
        nll = [part.nll for part in parts if part.nll is not None]
        return Observations(
            np.concatenate([part.score for part in parts]), np.concatenate(nll) if len(nll) == len(parts) else None
        )

    def final(self, finalists: Sequence[int]) -> NDArray[np.float64]:
        """Scores ``[n, f]`` on the selection samples: of answers decoded token by token, if there are references."""
        self.live = set(finalists)
        if not self.selection:
            return np.empty((0, len(finalists)))
        score = self._scored(self.selection, finalists, generate=self.decoded).score
        self.evaluations += score.size
        return score

    def add(self, candidate: Candidate) -> int:
        """The number of one more candidate."""
        self.candidates.append(candidate)
        self.live.add(len(self.candidates) - 1)
        return len(self.candidates) - 1

    def reject(self, candidates: Sequence[int]) -> None:
        """These are not measured any more."""
        self.live -= set(candidates)
        for candidate in candidates:
            self.shown.reject(self.candidates[candidate])

    def _scored(self, samples: Sequence[Sample], live: Sequence[int], generate: bool) -> Observations:
        names = [self.candidates[c].name for c in live]
        keys = [f"{'generated ' if generate else ''}{sample.split}/{sample.id}" for sample in samples]
        tasks, asked = [], []
        for key, sample in zip(keys, samples, strict=True):
            known = self.journal.known(self.study, key, names)
            if unknown := [c for c in live if self.candidates[c].name not in known]:
                chosen = tuple(self.candidates[c] for c in unknown)
                tasks.append(Task(sample, chosen, self.pruning, generate))
                asked.append(key)
            self.watcher.advance(self.outline, len(known))
        for number, scores in self.workers.score(tasks):
            self.journal.record(self.study, asked[number], [c.name for c in tasks[number].candidates], scores)
            self.watcher.advance(self.outline, len(scores.score), measured=True)
        rows = np.array([self.journal.scores(self.study, key, names) for key in keys], dtype=np.float64)
        # What has no likelihood was recorded as None, which numpy makes not-a-number.
        return Observations(rows[..., 0], None if np.isnan(rows[..., 1]).any() else rows[..., 1])

    def _tell(self, samples: range, live: Sequence[int], score: NDArray[np.float64]) -> None:
        for column, candidate in enumerate(live):
            seen = self.scores.setdefault(candidate, [])
            new = score[len(seen) - samples.start :, column] if len(seen) > samples.start else score[:, column]
            seen += new.tolist()
            self.evaluations += len(new)
            self.shown.report(self.candidates[candidate], len(seen), float(np.mean(seen)))
        leader = max(sorted(self.scores), key=lambda c: (c in self.live, len(self.scores[c]), np.mean(self.scores[c])))
        self.watcher.block(
            self.outline,
            Block(
                samples=samples.stop,
                left=len(self.live),
                leader=self.candidates[leader].name,
                scores=tuple(self.scores[leader]),
                evaluations=self.evaluations,
            ),
        )
