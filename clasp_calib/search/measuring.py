"""One class's questions, answered: from the journal what is known, by workers what is not; all of it recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.objective import METRIC
from clasp_calib.common.samples import Sample
from clasp_calib.search.confirm import FINALISTS
from clasp_calib.search.identity import Identity
from clasp_calib.search.parts import ClassSamples
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.shown import Trials
from clasp_calib.search.strategies.strategy import Observations
from clasp_calib.search.tasks import Task, Workers
from clasp_calib.search.watchers import Block, Outline, Watcher

BLOCK = 32
"""Samples between two reports. Our choice: a database takes milliseconds a report, and there is one a candidate."""


@dataclass(frozen=True)
class Desk:
    """What the searches of all classes at one budget share.

    Attributes:
        budget: its name.
        pruning: its schedule and settings.
        candidates: the space; the first is the default.
        parts: samples by class.
        identity: what scores depend on, by which they are recorded.
        journal: where scores are kept.
        watcher: who is told of progress.
    """

    budget: str
    pruning: Pruning
    candidates: Sequence[Candidate]
    parts: Mapping[str, ClassSamples]
    identity: Identity
    journal: ScoreJournal
    watcher: Watcher

    def comparable(self, label: str) -> bool:
        """Whether a class's scores on both splits are of one kind."""
        return self.identity.objective == METRIC or not self.parts[label].decoded


@dataclass
class Measuring:
    """Measures the candidates of one class at one budget.

    Attributes:
        desk: of the budget.
        label: of the class.
        shown: where its trials are shown.
        workers: who scores.
    """

    desk: Desk
    label: str
    shown: Trials
    workers: Workers
    part: ClassSamples = field(init=False)
    candidates: list[Candidate] = field(init=False)
    """What numbers stand for; more may be added."""
    live: set[int] = field(init=False)
    evaluations: int = 0
    """One candidate on one sample each, answered from wherever; the same pair counts once."""
    scores: dict[int, list[float]] = field(default_factory=dict)
    """Candidate -> its scores on the calibration samples so far, in their order."""

    def __post_init__(self) -> None:
        self.part, self.candidates = self.desk.parts[self.label], list(self.desk.candidates)
        self.live = set(range(len(self.candidates)))

    @property
    def outline(self) -> Outline:
        """In numbers."""
        space = len(self.desk.candidates)
        final = len(self.part.selection) * min(space, FINALISTS + 1)
        return Outline(self.desk.budget, self.label, space, len(self.part.calibration), final)

    @property
    def recorded(self) -> int:
        """Scores of the class's samples that there are, of whatever candidates."""
        keys = {self._key(sample, False) for sample in self.part.calibration}
        keys |= {self._key(sample, self.part.decoded) for sample in self.part.selection}
        return self.desk.journal.count(keys)

    def observe(self, samples: range, live: Sequence[int]) -> Observations:
        """What a strategy asks: see `clasp_calib.search.strategies.strategy`. Samples are asked for in their order."""
        parts = []
        for start in range(0, len(samples), BLOCK):
            part = samples[start : start + BLOCK]
            # What was answered before, to the same question, is no new evaluation.
            again = sum(max(0, min(len(self.scores.get(c, ())), part.stop) - part.start) for c in live)
            parts.append(self._scored([self.part.calibration[s] for s in part], live, False, again))
            self._tell(part, live, parts[-1].score)
        nll = [part.nll for part in parts if part.nll is not None]
        return Observations(
            np.concatenate([part.score for part in parts]), np.concatenate(nll) if len(nll) == len(parts) else None
        )

    def final(self, finalists: Sequence[int]) -> NDArray[np.float64]:
        """Scores ``[n, f]`` on the selection samples: of answers decoded token by token, if there are references."""
        self.live = set(finalists)
        score = self._scored(self.part.selection, finalists, self.part.decoded).score
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

    def _key(self, sample: Sample, generate: bool) -> str:
        return self.desk.identity.key(self.label, sample, generate)

    def _scored(self, samples: Sequence[Sample], live: Sequence[int], generate: bool, again: int = 0) -> Observations:
        journal, watcher = self.desk.journal, self.desk.watcher
        asked = [self.candidates[c] for c in live]
        keys = [self._key(sample, generate) for sample in samples]
        tasks, places, answered = [], [], 0
        for key, sample in zip(keys, samples, strict=True):
            known = set(journal.known(key, asked))
            if unknown := tuple(c for c in asked if c not in known):
                tasks.append(Task(sample, unknown, self.desk.pruning, generate))
                places.append(key)
            answered += len(known)
        watcher.advance(self.outline, answered - again)
        for number, scores in self.workers.score(tasks):
            journal.record(places[number], tasks[number].candidates, scores)
            watcher.advance(self.outline, len(scores.score), measured=True)
        rows = journal.scores(keys, asked)
        return Observations(rows[..., 0], None if np.isnan(rows[..., 1]).any() else rows[..., 1])

    def _tell(self, samples: range, live: Sequence[int], score: NDArray[np.float64]) -> None:
        for column, candidate in enumerate(live):
            seen = self.scores.setdefault(candidate, [])
            new = score[len(seen) - samples.start :, column] if len(seen) > samples.start else score[:, column]
            seen += new.tolist()
            self.evaluations += len(new)
            self.shown.report(self.candidates[candidate], len(seen), float(np.mean(seen)))
        leader = max(sorted(self.scores), key=lambda c: (c in self.live, len(self.scores[c]), np.mean(self.scores[c])))
        self.desk.watcher.block(
            self.outline,
            Block(
                samples=samples.stop,
                left=len(self.live),
                leader=self.candidates[leader].name,
                scores=tuple(self.scores[leader]),
                evaluations=self.evaluations,
            ),
        )
