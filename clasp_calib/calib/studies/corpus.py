"""Corpus metrics: what all samples of a metric are worth together, where that is no mean of their scores.

A search maximises the mean score of samples; these are reported beside it. They are computed from scores alone, so that
recorded ones will do: an answer to a yes-or-no question that is wrong said the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clasp_calib.calib.scoring.answer_metrics import gold_of
from clasp_calib.calib.studies.intervals import Clusters, Interval, resampled_interval
from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class JudgedAnswers:
    """Samples of one metric: whether each was answered rightly, whether *yes* is, and its picture's number."""

    right: NDArray[np.bool_]
    gold: NDArray[np.bool_]
    picture: NDArray[np.int64]

    @staticmethod
    def of(scores: Sequence[float], references: Sequence[Sequence[str]], pictures: Sequence[Any]) -> "JudgedAnswers":
        """From the scores of yes-or-no questions, their references and their pictures.

        Raises:
            InputError: a reference is neither yes nor no.
        """
        gold = np.array([gold_of(of) == "yes" for of in references])
        number = {picture: count for count, picture in enumerate(dict.fromkeys(pictures))}
        return JudgedAnswers(np.array(scores) == 1, gold, np.array([number[picture] for picture in pictures]))

    @property
    def said(self) -> NDArray[np.bool_]:
        """Whether the answer was *yes*."""
        said: NDArray[np.bool_] = self.gold == self.right
        return said


CorpusMetric = Callable[[JudgedAnswers, NDArray[np.int64]], float]
"""Of samples and how often each counts."""


def accuracy(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """Share of right answers."""
    return _share(judged.right, times)


def precision(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """Share of *yes* among the references where the answer is *yes*."""
    return _share(judged.gold[judged.said], times[judged.said])


def recall(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """Share of *yes* among the answers where the reference is *yes*."""
    return _share(judged.said[judged.gold], times[judged.gold])


def f1(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """Harmonic mean of precision and recall."""
    both = precision(judged, times), recall(judged, times)
    return 2 * both[0] * both[1] / sum(both) if sum(both) else 0.0


def yes_ratio(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """Share of *yes* among the answers; POPE prints it to show a bias."""
    return _share(judged.said, times)


def accuracy_plus(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """MME's accuracy+: share of pictures all of whose questions are answered rightly."""
    wrong = np.bincount(judged.picture, weights=~judged.right)
    first = np.unique(judged.picture, return_index=True)[1]
    return _share(wrong == 0, times[first])


def mme_score(judged: JudgedAnswers, times: NDArray[np.int64]) -> float:
    """MME's score of a subtask, accuracy and accuracy+ added up: 2 at best, which MME prints as 200."""
    return accuracy(judged, times) + accuracy_plus(judged, times)


_BINARY = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1, "yes_ratio": yes_ratio}
CORPUS_METRICS: Mapping[str, Mapping[str, CorpusMetric]] = {
    "yes_no": _BINARY,
    "pope": _BINARY,
    "mme": {"accuracy": accuracy, "accuracy_plus": accuracy_plus, "mme_score": mme_score},
}
"""Metric of the samples -> name -> corpus metric."""


def corpus_intervals(scores: NDArray[np.float64], samples: Sequence[Sample], seed: int) -> dict[str, Interval]:
    """Corpus metrics of the samples whose metric has some: ``metric name`` -> value with its interval.

    Args:
        scores: of the samples, [samples], or [runs, samples] of several runs, whose mean is given.
        samples: their metrics, references and pictures.
        seed: of the bootstrap by picture.

    Raises:
        InputError: see `JudgedAnswers.of`.
    """
    found = {}
    for metric, by_name in CORPUS_METRICS.items():
        chosen = [number for number, sample in enumerate(samples) if sample.metric == metric]
        if not chosen:
            continue
        pictures = [samples[number].cluster for number in chosen]
        references = [samples[number].answers for number in chosen]
        runs = [JudgedAnswers.of(run[chosen].tolist(), references, pictures) for run in np.atleast_2d(scores)]
        clusters = Clusters.of(pictures, seed)
        for name, value in by_name.items():
            resampled = np.array([_mean(value, runs, times) for times in clusters.weights])
            once = np.ones(len(chosen), dtype=np.int64)
            at = (_mean(value, runs, once), resampled, len(chosen), clusters.count)
            found[f"{metric} {name}"] = resampled_interval(*at, top=2.0 if value is mme_score else 1.0)
    return found


def _mean(value: CorpusMetric, runs: Sequence[JudgedAnswers], times: NDArray[np.int64]) -> float:
    return float(np.mean([value(run, times) for run in runs]))


def _share(values: NDArray[np.bool_], times: NDArray[np.int64]) -> float:
    """Weighted share; 0 of nothing, as scikit-learn has it."""
    total = times.sum()
    return float((values * times).sum() / total) if total else 0.0
