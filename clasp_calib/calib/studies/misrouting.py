"""What an artifact scores when questions get wrong classes: at random, or as a router was seen to err."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from clasp_calib.calib.studies.comparison import Comparison, Setting, compare
from clasp_calib.calib.studies.confusion import Confusion
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.calib.studies.subject import FULL, Subject
from clasp_calib.common.samples import Sample

MISROUTED = (0.1, 0.25, 0.5, 1.0)


def misrouted(
    scorer: Scorer,
    subject: Subject,
    samples: Mapping[str, Sequence[Sample]],
    seed: int,
    confusions: Sequence[Confusion] = (),
) -> tuple[Comparison, str]:
    """Every sample under every class's candidate; what a router that errs would score follows from that.

    Our choice: expected scores in place of draws, so that no seed is involved. Of errors at random this is the mean
    over all wrong classes; of a router's confusion the mean over what it makes of questions of the sample's class. How
    much the shares of a confusion vary by chance is not in the intervals.

    Args:
        scorer: of a model's evaluator with all of the subject's layers.
        subject: what is taken apart.
        samples: by class.
        seed: of the bootstrap.
        confusions: each gives a row, ``routed by`` its name.

    Returns:
        The scores, and the setting to subtract.

    Raises:
        InputError: a confusion does not fit the artifact's classes, or lacks one of the samples.
    """
    routers = {one.name: one.shares(subject.artifact.classes, tuple(samples)) for one in confusions}
    labels = subject.artifact.classes
    candidates = subject.candidates()
    settings = [Setting(label, subject.pruning, dict.fromkeys(labels, candidates[label])) for label in labels]
    treated = compare(scorer, settings, samples, seed)
    own = np.array([labels.index(label) for label in treated.labels])
    right = treated.scores[own, np.arange(len(own))]
    wrong = (treated.scores.sum(0) - right) / max(len(labels) - 1, 1)
    rows = {FULL: right}
    if (fallback := subject.artifact.manifest.default_class) is not None:
        rows[f"always {fallback}"] = treated.scores[labels.index(fallback)]
    rows |= {f"{share:.0%} at random wrong": (1 - share) * right + share * wrong for share in MISROUTED}
    for name, shares in routers.items():
        rows[f"routed by {name}"] = (shares[own] * treated.scores.T).sum(1)
    return replace(treated, settings=tuple(rows), scores=np.stack(list(rows.values()))), FULL
