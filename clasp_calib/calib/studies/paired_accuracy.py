"""How right two ways to answer are on the same questions, from what they said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.calib.scoring.metrics import EXACT, metric
from clasp_calib.calib.studies.intervals import Clusters, Interval, interval
from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class PairedAccuracy:
    """Mean scores of two ways to answer, and their paired difference, with 95 % intervals by picture."""

    plain: Interval
    pruned: Interval
    difference: Interval
    """Pruned less plain, question by question."""


def scored(samples: Sequence[Sample], answers: Sequence[str]) -> list[float | None]:
    """What each answer is worth by its sample's own metric, in [0, 1]; ``None`` where nothing is accepted.

    Raises:
        InputError: see `clasp_calib.calib.scoring.metrics.metric`.
    """
    return [
        metric(sample.metric or EXACT)(answer, sample.answers) if sample.answers else None
        for sample, answer in zip(samples, answers, strict=True)
    ]


def paired_accuracy(
    samples: Sequence[Sample], plain: Sequence[str], pruned: Sequence[str], seed: int
) -> PairedAccuracy | None:
    """Compare answers to the same questions; ``None`` if no sample has an accepted answer.

    Args:
        samples: questions; those without accepted answers do not count.
        plain: an answer for each.
        pruned: another one.
        seed: of the bootstrap.

    Raises:
        InputError: see `scored`.
    """
    pairs = [
        (sample, one, other)
        for sample, one, other in zip(samples, scored(samples, plain), scored(samples, pruned), strict=True)
        if one is not None
    ]
    if not pairs:
        return None
    clusters = Clusters.of([sample.cluster for sample, _, _ in pairs], seed)
    ours, theirs = (np.array([pair[place] for pair in pairs], dtype=np.float64) for place in (2, 1))
    return PairedAccuracy(
        interval(theirs, clusters), interval(ours, clusters), interval(ours - theirs, clusters, "gains")
    )
