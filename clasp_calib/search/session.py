"""All classes at one budget: each with its study, at the same desk of journal and workers."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.samples import Sample
from clasp_calib.search.engine import Choice, ClassScores, choose, finalists_of, search_class
from clasp_calib.search.measuring import Desk, Measuring
from clasp_calib.search.shown import Trials
from clasp_calib.search.strategies.grid import Grid
from clasp_calib.search.strategies.registry import name_of
from clasp_calib.search.strategies.strategy import Strategy, ranked
from clasp_calib.search.tasks import Workers


@dataclass(frozen=True)
class Session:
    """The search at one budget.

    Attributes:
        desk: where candidates are measured.
        strategy: for every class.
        seed: of the strategy and the final.
        refine: tune the strategy's winner further.
        shown: makes the trials of a study, by a name that is unique among all searches.
    """

    desk: Desk
    strategy: Strategy
    seed: int
    refine: bool
    shown: Callable[[str], Trials]

    def begin(self) -> None:
        """Begin the studies, or take them up again.

        Raises:
            StudyError: scores were recorded under other settings.
        """
        desk = self.desk
        desk.journal.settle(desk.budget, desk.identity.setting)
        for label, part in desk.parts.items():
            asked = [(s, False) for s in part.calibration] + [(s, part.decoded) for s in part.selection]
            keys = {
                f"{'generated ' if generate else ''}{s.split}/{s.id}": desk.identity.key(label, s, generate)
                for s, generate in asked
            }
            # An exhaustive search that an earlier version recorded is taken up for its choices.
            for strategy in (self.strategy, Grid()) if self._was_exhaustive(label) else (self.strategy,):
                setup = desk.identity.setup(label, strategy, self.seed)
                desk.journal.begin(self._study(label, strategy), setup, keys, desk.candidates)

    def has_begun(self, label: str) -> bool:
        """Whether there are scores of a class's calibration samples."""
        identity, part = self.desk.identity, self.desk.parts[label]
        return self.desk.journal.count({identity.key(label, sample, False) for sample in part.calibration}) > 0

    def search(self, workers: Workers) -> dict[str, Choice]:
        """Search the classes: one after the other, or all at once if there are several workers to keep busy."""
        desk = self.desk

        def searched(label: str) -> Choice:
            setup = desk.identity.setup(label, self.strategy, self.seed)
            shown = self.shown(f"{self._study(label, self.strategy)} {setup[:8]}")
            measuring = Measuring(desk, label, shown, workers)
            desk.watcher.begin(measuring.outline, measuring.recorded)
            choice = search_class(measuring, self.strategy, self.seed, self.refine)
            desk.watcher.chosen(measuring.outline, choice.summary)
            return choice

        if workers.count == 1:
            return {label: searched(label) for label in desk.parts}
        with ThreadPoolExecutor(len(desk.parts)) as threads:
            try:
                return dict(zip(desk.parts, threads.map(searched, desk.parts), strict=True))
            except BaseException:
                # Whatever it was, the other classes shall not go on for hours.
                threads.shutdown(wait=False, cancel_futures=True)
                workers.close()
                raise

    def exhaustive(self) -> dict[str, Choice]:
        """What the exhaustive search chose, for the classes of which the journal holds all its scores."""
        found = {label: self._exhaustive(label) for label in self.desk.parts if self._was_exhaustive(label)}
        return {label: choice for label, choice in found.items() if choice}

    def _was_exhaustive(self, label: str) -> bool:
        """Whether an exhaustive search of the class was begun, with the same samples and candidates."""
        setup = self.desk.journal.setup(self._study(label, Grid()))
        return setup == self.desk.identity.setup(label, Grid(), self.seed)

    def _exhaustive(self, label: str) -> Choice | None:
        desk, part = self.desk, self.desk.parts[label]
        everyone = range(len(desk.candidates))
        calibration = self._recorded(label, part.calibration, everyone, generate=False)
        if calibration is None:
            return None
        order = ranked(everyone, calibration)
        finalists = finalists_of(order)
        selection = self._recorded(label, part.selection, finalists, generate=part.decoded)
        if selection is None:
            return None
        scores = dict(enumerate(calibration.T.tolist()))
        pictures = [sample.cluster for sample in part.selection]
        measured = ClassScores(desk.candidates, scores, finalists, selection, pictures, desk.comparable(label))
        return choose(measured, order[0], self.seed)

    def _recorded(
        self, label: str, samples: Sequence[Sample], asked: Sequence[int], generate: bool
    ) -> NDArray[np.float64] | None:
        """Scores ``[n, m]`` in the journal; ``None`` if it lacks one."""
        journal, candidates = self.desk.journal, [self.desk.candidates[c] for c in asked]
        keys = [self.desk.identity.key(label, sample, generate) for sample in samples]
        if any(len(journal.known(key, candidates)) < len(candidates) for key in keys):
            return None
        return journal.scores(keys, candidates)[..., 0]

    def _study(self, label: str, strategy: Strategy) -> str:
        return f"{self.desk.budget}/{name_of(strategy)}/{label}"
