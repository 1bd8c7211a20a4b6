"""Settings compared on the same samples: means by class and macro, with intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clasp_calib.artifacts.manifest import MACRO
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.score_tasks import ScoreTask
from clasp_calib.calib.studies.intervals import Clusters, Interval, Kind, interval, macro_interval
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.calib.studies.significance import holm, sign_flip_p
from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class Setting:
    """One way to answer: which tokens are dropped, and which candidate each class uses."""

    name: str
    pruning: Pruning
    candidates: Mapping[str, Candidate]


@dataclass(frozen=True)
class Comparison:
    """Scores ``[settings, samples]`` and what to group them by."""

    settings: tuple[str, ...]
    scores: NDArray[np.float64]
    labels: tuple[str, ...]
    samples: tuple[str, ...]
    pictures: tuple[str, ...]
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that occur, in the order of first occurrence."""
        return tuple(dict.fromkeys(self.labels))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples each class has."""
        return tuple(map(self.labels.count, self.classes))

    def part(self, settings: Sequence[int], names: Sequence[str]) -> "Comparison":
        """Some of the settings, by their places, under other names."""
        return replace(self, settings=tuple(names), scores=self.scores[list(settings)])

    def rows(self, settings: Sequence[str]) -> NDArray[np.float64]:
        """Scores ``[settings, samples]`` of some settings."""
        return self.scores[[self.settings.index(name) for name in settings]]

    def averaged(self, name: str, settings: Sequence[str]) -> "Comparison":
        """The same, with one setting in the place of several, which scores their mean on each sample.

        For runs that draw anew for every sample: what a draw changes is then part of how samples differ, and so of the
        intervals.
        """
        runs = [self.settings.index(one) for one in settings]
        rest = [row for row in range(len(self.settings)) if row not in runs[1:]]
        scores = self.scores.copy()
        scores[runs[0]] = scores[runs].mean(0)
        names = [name if row == runs[0] else self.settings[row] for row in rest]
        return replace(self, settings=tuple(names), scores=scores[rest])

    def table(self) -> dict[str, dict[str, Interval]]:
        """Setting -> class or ``macro`` -> mean score with its interval."""
        return {name: self._intervals(row, "shares") for name, row in zip(self.settings, self.scores, strict=True)}

    def difference(self, setting: str, reference: str) -> dict[str, Interval]:
        """Class or ``macro`` -> paired difference of two settings on the same samples, with its interval."""
        ours, theirs = self.rows([setting, reference])
        return self._intervals(ours - theirs, "gains")

    def chance(self, reference: str) -> dict[str, float]:
        """Setting -> p of its macro difference from another, by sign flips and adjusted by Holm over the settings."""
        rest = [name for name in self.settings if name != reference]
        if not rest:
            return {}
        differences = self.rows(rest) - self.rows([reference])
        p = sign_flip_p(differences, self._groups, self._clusters.number, self.seed)
        return holm(dict(zip(rest, p.tolist(), strict=True)))

    @cached_property
    def _clusters(self) -> Clusters:
        return Clusters.of(self.pictures, self.seed)

    @cached_property
    def _groups(self) -> NDArray[np.int64]:
        places = {label: place for place, label in enumerate(self.classes)}
        return np.array([places[label] for label in self.labels])

    @cached_property
    def _by_class(self) -> dict[str, tuple[NDArray[np.bool_], Clusters]]:
        inside = {label: self._groups == place for place, label in enumerate(self.classes)}
        return {label: (which, self._clusters.inside(which)) for label, which in inside.items()}

    def _intervals(self, scores: NDArray[np.float64], kind: Kind) -> dict[str, Interval]:
        found = {label: interval(scores[inside], of, kind) for label, (inside, of) in self._by_class.items()}
        return {**found, MACRO: macro_interval(scores, self._groups, self._clusters, kind)}


def _tasks(label: str, sample: Sample, settings: Sequence[Setting]) -> list[ScoreTask]:
    """What is scored of a sample: settings that prune alike share a forward, and equal candidates a row of it."""
    asked: dict[Pruning, dict[Candidate, None]] = {}
    for setting in settings:
        asked.setdefault(setting.pruning, {})[setting.candidates[label]] = None
    return [ScoreTask(sample, tuple(candidates), pruning) for pruning, candidates in asked.items()]


def compare(
    scorer: Scorer, settings: Sequence[Setting], samples: Mapping[str, Sequence[Sample]], seed: int
) -> Comparison:
    """Score every setting on every sample; those of a picture one after the other, for they share a read of it.

    Args:
        scorer: of the model.
        settings: what to compare.
        samples: by class.
        seed: of the bootstrap.
    """
    flat = [(label, sample) for label, of in samples.items() for sample in of]
    tasks = [(place, task) for place in by_picture([s for _, s in flat]) for task in _tasks(*flat[place], settings)]
    found: dict[tuple[int, Pruning, Candidate], float] = {}
    for (place, task), scores in zip(tasks, scorer.scores([task for _, task in tasks]), strict=True):
        found |= {(place, task.pruning, of): score for of, score in zip(task.candidates, scores, strict=True)}
    columns = [[found[n, s.pruning, s.candidates[label]] for s in settings] for n, (label, _) in enumerate(flat)]
    return Comparison(
        tuple(s.name for s in settings),
        np.array(columns, dtype=np.float64).T,
        tuple(label for label, _ in flat),
        tuple(sample.id for _, sample in flat),
        tuple(sample.cluster for _, sample in flat),
        seed,
    )


def by_picture(samples: Sequence[Sample]) -> list[int]:
    """Places of the samples, picture by picture, in the order of first occurrence."""
    first: dict[tuple[str, ...], int] = {}
    for place, sample in enumerate(samples):
        first.setdefault(tuple(map(str, sample.media)), place)
    return sorted(range(len(samples)), key=lambda place: first[tuple(map(str, samples[place].media))])
