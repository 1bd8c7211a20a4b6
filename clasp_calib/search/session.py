"""All classes at one budget: each with its study, at the same desk of journal, storage and workers."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.hashing import sha256_json
from clasp_calib.search.engine import Choice, search_class
from clasp_calib.search.measuring import Measuring
from clasp_calib.search.optuna_study import Study
from clasp_calib.search.parts import ClassSamples
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.registry import describe, name_of
from clasp_calib.search.strategies.strategy import Strategy
from clasp_calib.search.tasks import Task, Workers
from clasp_calib.search.watchers import Silent, Watcher


@dataclass(frozen=True)
class Session:
    """The search at one budget.

    Attributes:
        budget: its name.
        pruning: its schedule and settings.
        candidates: the space; the first is the default.
        layers: vision layers that candidates mix.
        parts: samples by class.
        identity: class -> all that its scores depend on, but for the strategy and the seed.
        strategy: for every class.
        seed: of the strategy and the final.
        objective: what strategies maximise.
        refine: tune the strategy's winner further.
        journal: where scores are kept.
        storage: where they are shown.
        watcher: who is told of progress.
    """

    budget: str
    pruning: Pruning
    candidates: Sequence[Candidate]
    layers: Sequence[int]
    parts: Mapping[str, ClassSamples]
    identity: Mapping[str, Mapping[str, Any]]
    strategy: Strategy
    seed: int
    objective: str
    refine: bool
    journal: ScoreJournal
    storage: BaseStorage
    watcher: Watcher

    def begin(self) -> None:
        """Begin the studies, or take them up again.

        Raises:
            StudyError: one was recorded under other settings.
        """
        for label in self.parts:
            self.journal.begin(self._study(label, self.strategy), self._setup(label, self.strategy))

    def search(self, workers: Workers) -> dict[str, Choice]:
        """Search the classes: one after the other, or all at once if there are several workers to keep busy."""

        def searched(label: str) -> Choice:
            name, setup = self._study(label, self.strategy), self._setup(label, self.strategy)
            # A storage may be shared by many searches: the setup tells them apart.
            shown = Study(self.storage, f"{name} {setup[:8]}", self.layers)
            measuring = self._measuring(label, name, shown, workers, self.watcher)
            self.watcher.begin(measuring.outline, self.journal.begin(name, setup))
            choice = search_class(measuring, self.strategy, self.seed, self.refine)
            self.watcher.chosen(measuring.outline, choice.summary)
            return choice

        if workers.count == 1:
            return {label: searched(label) for label in self.parts}
        with ThreadPoolExecutor(len(self.parts)) as threads:
            try:
                return dict(zip(self.parts, threads.map(searched, self.parts), strict=True))
            except BaseException:
                # Whatever it was, the other classes shall not go on for hours.
                threads.shutdown(wait=False, cancel_futures=True)
                workers.close()
                raise

    def exhaustive(self) -> dict[str, Choice]:
        """What the exhaustive search chose, for the classes of which the journal holds all its scores."""
        found = {}
        for label in self.parts:
            name = self._study(label, Grid())
            if self.journal.setup(name) != self._setup(label, Grid()):
                continue
            shown = Study(InMemoryStorage(), name, ())
            try:
                found[label] = search_class(self._measuring(label, name, shown, _Nobody(), Silent()), Grid(), self.seed)
            except _NotMeasuredError:
                continue
        return found

    def _measuring(self, label: str, study: str, shown: Study, workers: Workers, watcher: Watcher) -> Measuring:
        part = self.parts[label]
        return Measuring(
            self.budget,
            label,
            study,
            list(self.candidates),
            part.calibration,
            part.selection,
            self.pruning,
            self.objective,
            self.journal,
            shown,
            workers,
            watcher,
        )

    def _study(self, label: str, strategy: Strategy) -> str:
        return f"{self.budget}/{name_of(strategy)}/{label}"

    def _setup(self, label: str, strategy: Strategy) -> str:
        return sha256_json({**self.identity[label], "strategy": describe(strategy), "seed": self.seed})


class _NotMeasuredError(Exception):
    """The journal lacks a score."""


class _Nobody:
    """Workers that do nothing, so that only what is recorded is known."""

    count = 1

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Scores]]:
        if tasks:
            raise _NotMeasuredError
        return iter(())

    def close(self) -> None:
        pass
