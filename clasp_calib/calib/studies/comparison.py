"""Settings compared on the same samples: means by class and macro, with intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clasp_calib.artifacts.manifest import MACRO
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.studies.intervals import Clusters, Interval, Kind, interval, macro_interval
from clasp_calib.common.progress import track
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

    def _intervals(self, scores: NDArray[np.float64], kind: Kind) -> dict[str, Interval]:
        clusters = Clusters.of(self.pictures, self.seed)
        labels = np.array(self.labels)
        found = {}
        for label in self.classes:
            inside = labels == label
            found[label] = interval(scores[inside], clusters.inside(inside), kind)
        groups = np.array([self.classes.index(label) for label in self.labels])
        return {**found, MACRO: macro_interval(scores, groups, clusters, kind)}


def _scores(evaluator: Evaluator, sample: Sample, label: str, settings: Sequence[Setting]) -> list[float]:
    """Score of each setting; settings that prune alike share a forward, and equal candidates a row of it."""
    found: dict[tuple[Pruning, Candidate], float] = {}
    for pruning in dict.fromkeys(setting.pruning for setting in settings):
        candidates = list(dict.fromkeys(s.candidates[label] for s in settings if s.pruning == pruning))
        scores = evaluator.scores(sample, candidates, pruning).score
        found |= {(pruning, candidate): score for candidate, score in zip(candidates, scores, strict=True)}
    return [found[setting.pruning, setting.candidates[label]] for setting in settings]


def compare(
    evaluator: Evaluator, settings: Sequence[Setting], samples: Mapping[str, Sequence[Sample]], seed: int
) -> Comparison:
    """Score every setting on every sample; those of a picture one after the other, for they share a read of it.

    Args:
        evaluator: of the model.
        settings: what to compare.
        samples: by class.
        seed: of the bootstrap.
    """
    flat = [(label, sample) for label, of in samples.items() for sample in of]
    columns: list[list[float]] = [[]] * len(flat)
    for place in track(by_picture([sample for _, sample in flat]), "answering", len(flat)):
        label, sample = flat[place]
        columns[place] = _scores(evaluator, sample, label, settings)
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
