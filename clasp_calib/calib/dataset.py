"""From a labelled table to the samples that a search races on and a comparison reports on."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clasp_calib.calib.scoring.metrics import EXACT, metric
from clasp_calib.calib.scoring.prompting import IMAGE
from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import Sample, read_table, samples_of

SHARES = (("calibration", 0.5), ("selection", 0.25), ("test", 0.25))
"""How pictures are divided where the table does not say. Our choice."""


def load_samples(path: Path, classes: Sequence[str], limit: int | None = None, answers: bool = True) -> list[Sample]:
    """Read labelled samples, each with a picture, answers, a class and a split.

    Samples without a split are divided by picture, so that no picture stands on two sides.

    Args:
        path: the table.
        classes: the class slugs that are allowed.
        limit: read no more than this many rows.
        answers: whether every sample needs some; the objective ``kl`` compares with none.

    Raises:
        InputError: a column or value is missing, a picture's file does not exist or is in two splits, or a
            metric is unknown.
    """
    samples = samples_of(read_table(path, limit=limit), path.parent, classes)
    _require(path, samples, "class", [s for s in samples if s.label is None], "run `clasp-calib label` first")
    _require(path, samples, "image", [s for s in samples if s.image is None], "every sample needs a picture")
    lacking = [s for s in samples if answers and not s.answers]
    _require(path, samples, "answers", lacking, "the score compares with them; only the objective kl does without")
    for sample in samples:
        if sample.image is not None and not sample.image.is_file():
            raise InputError(
                f"sample {sample.id!r} names the picture {sample.image}, which does not exist; "
                f"paths are relative to {path.parent}"
            )
        try:
            # An answer of nothing, so that references that the metric cannot compare with are found now.
            compare = metric(sample.metric or EXACT)
            if sample.answers:
                compare("", sample.answers)
        except InputError as error:
            raise InputError(f"sample {sample.id!r}: {error}") from error
        if IMAGE in sample.question:
            raise InputError(f"sample {sample.id!r} holds {IMAGE} in its question; remove it: the template places it")
    given: dict[Path | None, str] = {}
    for sample in samples:
        if sample.split and given.setdefault(sample.image, sample.split) != sample.split:
            raise InputError(
                f"the picture {sample.image} is in the splits {given[sample.image]!r} and {sample.split!r} (sample "
                f"{sample.id!r}); a picture that was tuned on tells nothing in a test: give it to one"
            )
    return [s if s.split else replace(s, split=given.get(s.image) or split_of(s)) for s in samples]


def split_of(sample: Sample) -> str:
    """The split of a sample by the hash of its picture's name."""
    digest = hashlib.sha256(str(sample.image.name if sample.image else sample.id).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in SHARES:
        place -= share
        if place < 0:
            return split
    return SHARES[-1][0]


def of_split(samples: Sequence[Sample], split: str) -> list[Sample]:
    """The samples of one split.

    Raises:
        InputError: there are none.
    """
    chosen = [s for s in samples if s.split == split]
    if not chosen:
        there = sorted({str(s.split) for s in samples})
        raise InputError(
            f"no sample is of the split {split!r} (there are {', '.join(there)}); choose one of these, or give a table "
            "that has it, or one without the column 'split', whose pictures are then divided"
        )
    return chosen


def by_class(
    samples: Sequence[Sample], classes: Sequence[str], limit: int | None, seed: int
) -> dict[str, list[Sample]]:
    """At most ``limit`` samples of each class, in an order shuffled by ``seed``; empty classes are left out."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: s.id):
        groups[str(sample.label)].append(sample)
    chosen = {}
    for label in classes:
        if groups[label]:
            random.Random(f"{seed}-{label}").shuffle(groups[label])
            chosen[label] = groups[label][:limit]
    return chosen


def _require(path: Path, samples: Sequence[Sample], column: str, lacking: Sequence[Sample], advice: str) -> None:
    if lacking:
        raise InputError(
            f"{path}: {len(lacking)} of {len(samples)} samples have no {column!r} "
            f"(first id {lacking[0].id!r}); {advice}"
        )
