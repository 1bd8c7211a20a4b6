"""The questions of a search, answered: from the journal what is known, by workers what is not; all of it recorded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.score_tasks import ScoreTask
from clasp_calib.common.samples import Sample
from clasp_calib.crew.tasks import Workers
from clasp_calib.search.belief import Belief, Groups, believe, kernels, signal
from clasp_calib.search.identity import Identity
from clasp_calib.search.parts import Pools
from clasp_calib.search.score_journal import ScoreJournal
from clasp_calib.search.shown import Trials
from clasp_calib.search.strategies.strategy import DEFAULT, Ask, Observations
from clasp_calib.search.verdict import Verdict, decide
from clasp_calib.search.watchers import Outline, Progress, Watcher

Floats = NDArray[np.float64]
DRAWS = 1000
"""From the posterior of a class, to tell where its search stands."""


@dataclass(frozen=True)
class Desk:
    """What does not change while the classes of one budget are searched.

    Attributes:
        budget: its name.
        pruning: its schedule and settings.
        candidates: the space; the first is the default.
        pools: samples by class.
        identity: what scores depend on, by which they are recorded.
        journal: where scores are kept.
    """

    budget: str
    pruning: Pruning
    candidates: Sequence[Candidate]
    pools: Pools
    identity: Identity
    journal: ScoreJournal

    def keys(self, label: str) -> list[str]:
        """What the scores of a class's samples are recorded under."""
        return [self.identity.key(sample) for sample in self.pools[label]]

    def recorded(self, label: str) -> Floats:
        """Score and likelihood, ``[n, C, 2]``, of all of a class that the journal knows; not-a-number elsewhere."""
        return self.journal.scores(self.keys(label), self.candidates)

    def judged(self, label: str) -> Floats:
        """What candidates are judged by, ``[n, C]``, of all that the journal knows."""
        return signal(*_parts(self.recorded(label)))

    def has_begun(self, label: str) -> bool:
        """Whether there are scores of a class's samples."""
        return self.journal.count(self.keys(label)) > 0

    def evidence(self) -> "Fed":
        """All that the journal knows of this budget, for the search of another."""
        judged = {label: self.judged(label) for label in self.pools}
        return Fed(self.budget, {label: table for label, table in judged.items() if not np.isnan(table).all()})

    def is_complete(self, label: str) -> bool:
        """Whether the journal knows every candidate's score on every sample of a class."""
        count = len(self.candidates)
        return all(len(self.journal.known(key, self.candidates)) == count for key in self.keys(label))


@dataclass(frozen=True)
class Fed:
    """What another budget's search tells this one: ``tables`` [n, C] by class, of what candidates are judged by."""

    budget: str
    tables: Mapping[str, Floats]


class ClassScores:
    """What was asked of one class so far.

    Args:
        pool: its samples.
        candidates: the space; more may be added.
    """

    def __init__(self, pool: Sequence[Sample], candidates: Sequence[Candidate]):
        self.pool, self.candidates = pool, list(candidates)
        self.live = set(range(len(candidates)))
        self.values = np.full((len(pool), len(candidates), 2), np.nan)
        """``[n, C, 2]``: score and likelihood; not-a-number where it was not asked."""

    @property
    def asked(self) -> NDArray[np.bool_]:
        """``[n, C]``."""
        known: NDArray[np.bool_] = ~np.isnan(self.values[..., 0])
        return known

    def add(self, candidate: Candidate) -> int:
        """The number of one more candidate."""
        self.candidates.append(candidate)
        self.live.add(len(self.candidates) - 1)
        self.values = np.concatenate([self.values, np.full((len(self.pool), 1, 2), np.nan)], axis=1)
        return len(self.candidates) - 1


class Measuring:
    """Measures candidates at one budget, and says what to believe of them.

    Args:
        desk: of the budget.
        workers: who scores.
        watcher: who is told of progress.
        trials: where a class's trials are shown.
        most: the most evaluations that the search of so many samples takes.
        fed: scores of other budgets, which are evidence too.
    """

    def __init__(
        self,
        desk: Desk,
        workers: Workers,
        watcher: Watcher,
        trials: Mapping[str, Trials],
        most: Callable[[int], int],
        fed: Sequence[Fed] = (),
    ):
        self._desk, self._workers, self._watcher, self._trials, self._fed = desk, workers, watcher, trials, fed
        self.classes = {label: ClassScores(pool, desk.candidates) for label, pool in desk.pools.items()}
        self.outlines = {
            label: Outline(desk.budget, label, len(desk.candidates), len(pool), most(len(pool)))
            for label, pool in desk.pools.items()
        }
        self._believed: Belief | None = None
        for label, outline in self.outlines.items():
            watcher.begin(outline, desk.journal.count(desk.keys(label)))

    @property
    def rated(self) -> bool:
        """Whether tokens have a relevance, so that rho means something."""
        return self._desk.pruning.options.rated

    def measure(self, asks: Sequence[Ask]) -> list[Observations]:
        """What a strategy asks: see `clasp_calib.search.strategies.strategy`; no sample twice in one call."""
        desk, tasks, places = self._desk, list[ScoreTask](), list[tuple[str, str]]()
        for ask in asks:
            of, answered = self.classes[ask.label], 0
            asked = [of.candidates[c] for c in ask.live]
            for sample in (of.pool[s] for s in ask.samples):
                key = desk.identity.key(sample)
                known = set(desk.journal.known(key, asked))
                if unknown := tuple(candidate for candidate in asked if candidate not in known):
                    tasks.append(ScoreTask(sample, unknown, desk.pruning))
                    places.append((ask.label, key))
                answered += len(known)
            # What was answered before, to the same question, is no new evaluation.
            again = int(of.asked[np.ix_(ask.samples, ask.live)].sum())
            self._watcher.advance(self.outlines[ask.label], answered - again)
        for number, scores in self._workers.do(tasks):
            label, key = places[number]
            desk.journal.record(key, tasks[number].candidates, scores)
            self._watcher.advance(self.outlines[label], len(scores.score), measured=True)
        answers = [self._taken(ask) for ask in asks]
        self._believed = None
        self._tell({ask.label for ask in asks})
        return answers

    def belief(self) -> Belief:
        """The belief in all that was asked so far, of the space's candidates: its classes are those of the search."""
        if self._believed is None:
            self._believed = self._belief(self.signals(), self._kernels)
        return self._believed

    def signals(self) -> list[Floats]:
        """What the space's candidates are judged by, ``[n, C]`` a class; not-a-number where it was not asked."""
        space = len(self._desk.candidates)
        return [signal(*_parts(of.values[:, :space])) for of in self.classes.values()]

    def with_tuned(self, label: str) -> tuple[Belief, list[Floats]]:
        """The belief that candidates added to a class are part of too, and what it is of."""
        candidates = self.classes[label].candidates
        signals = [_widened(table, len(candidates)) for table in self.signals()]
        signals[list(self.classes).index(label)] = signal(*_parts(self.classes[label].values))
        return self._belief(signals, kernels(candidates)), signals

    def exhaustive(self) -> dict[str, Verdict]:
        """What all scores of the space would decide, by class; nothing if the journal does not hold them all."""
        if not all(map(self._desk.is_complete, self.classes)):
            return {}
        signals = [self._desk.judged(label) for label in self.classes]
        return dict(zip(self.classes, decide(self._belief(signals, self._kernels), signals), strict=True))

    def reject(self, label: str, candidates: Sequence[int]) -> None:
        """These candidates of a class are not measured any more."""
        of = self.classes[label]
        of.live -= set(candidates)
        for candidate in candidates:
            self._trials[label].reject(of.candidates[candidate])

    @cached_property
    def _kernels(self) -> Floats:
        return kernels(self._desk.candidates)

    def _belief(self, signals: Sequence[Floats], covariances: Floats) -> Belief:
        tables, classes, budgets = list(signals), list(self.classes), [self._desk.budget] * len(signals)
        for fed in self._fed:
            tables += [_widened(table, covariances.shape[1]) for table in fed.tables.values()]
            classes += fed.tables
            budgets += [fed.budget] * len(fed.tables)
        return believe(tables, covariances, Groups(tuple(classes), tuple(budgets)), len(self._desk.candidates))

    def _taken(self, ask: Ask) -> Observations:
        of = self.classes[ask.label]
        keys = [self._desk.identity.key(of.pool[s]) for s in ask.samples]
        values = self._desk.journal.scores(keys, [of.candidates[c] for c in ask.live])
        of.values[np.ix_(ask.samples, ask.live)] = values
        return Observations(values[..., 0], None if np.isnan(values[..., 1]).any() else values[..., 1])

    def _tell(self, labels: set[str]) -> None:
        belief = self.belief()
        for number, (label, of) in enumerate(self.classes.items()):
            if label not in labels:
                continue
            seen = of.asked
            for candidate in np.flatnonzero(seen.any(0)):
                count, mean = int(seen[:, candidate].sum()), float(np.nanmean(of.values[:, candidate, 0]))
                self._trials[label].report(of.candidates[candidate], count, mean)
            leader = belief.leader(number)
            draws = belief.draws(DRAWS, number, np.random.default_rng(0))
            gains = draws[:, leader] - draws[:, DEFAULT]
            low, high = np.quantile(gains, [0.025, 0.975])
            standing = Progress(
                samples=int(seen.any(1).sum()),
                left=len(of.live),
                leader=of.candidates[leader].name,
                gain=float(gains.mean()),
                low=float(low),
                high=float(high),
                worse=float((gains < 0).mean()),
                evaluations=int(seen.sum()),
            )
            self._watcher.stands(self.outlines[label], standing)


def _parts(values: Floats) -> tuple[Floats, Floats]:
    return values[..., 0], values[..., 1]


def _widened(table: Floats, width: int) -> Floats:
    """Not-a-number in the columns that are missing."""
    return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=np.nan)
