"""How right the package's own labelers are: as measured on questions that they were not made on."""

import json

import numpy as np

from clasp_calib.router_labeling.embedding_labeler import EmbeddingLabeler
from clasp_calib.router_labeling.fallback import packaged_scheme
from clasp_calib.router_labeling.labelers import KeywordLabeler, Labeler, Scheme
from clasp_calib.router_labeling.taxonomy import packaged

CONFUSIONS = "assets/confusion.json"
"""Of each labeler the packaged classes and the counts, true by given, as `benchmarks/labels.py` writes them."""


def expected_accuracy(labeler: Labeler, scheme: Scheme) -> str | None:
    """What to expect of a labeler, in words; ``None`` for what was not measured: others', or another scheme.

    Args:
        labeler: any.
        scheme: what it sorts questions into.
    """
    if isinstance(labeler, EmbeddingLabeler) and labeler.head is not None and labeler.default_below == 0:
        quality = labeler.trained.quality
        return f"{quality.macro:.0%} right on {quality.questions} questions held out in training (mean over classes)"
    ours = packaged_scheme()
    if (scheme.taxonomy.digest, scheme.rules.digest) != (ours.taxonomy.digest, ours.rules.digest):
        return None
    if isinstance(labeler, KeywordLabeler):
        name = "keywords"
    elif isinstance(labeler, EmbeddingLabeler) and labeler.head is None and labeler.default_below == 0:
        name = "embedding"
    else:
        return None
    counts = np.array(json.loads(packaged(CONFUSIONS).read_text(encoding="utf-8"))[name]["counts"])
    recall = (counts.diagonal() / counts.sum(1)).mean()
    return f"{recall:.0%} right on {counts.sum()} varied questions that it was not made on (mean over classes)"
