"""From a labelled table to the samples that a search races on and a comparison reports on."""

import errno
import hashlib
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clasp_calib.calib.lookalikes import warn_of_lookalikes
from clasp_calib.calib.scoring.metrics import EXACT, check_references, metric
from clasp_calib.common.contents import grouped, identified
from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_set import Samples
from clasp_calib.common.samples import Sample

SHARES = (("calibration", 0.5), ("selection", 0.25), ("test", 0.25))
"""How pictures are divided where the table does not say. Our choice."""
UNLABELLED = (
    "run `clasp-calib label` first (clasp_calib.label in Python), or name a column whose values are classes "
    "(--class-from, class_from=)"
)
"""What to do about samples without a class."""


def calibration_samples(
    samples: Sequence[Sample], classes: Sequence[str], answers: bool = True, hints: Path | None = None
) -> list[Sample]:
    """Check that all samples have a picture, answers, a class and a split.

    Samples without a split are divided by the content of their pictures: no picture stands on two sides, and where it
    lies and what it is called makes no difference. Pictures of different splits that look alike are warned of.

    Args:
        samples: labelled.
        classes: the class slugs that are allowed.
        answers: whether every sample needs some; the objective ``kl`` compares with none.
        hints: see `clasp_calib.common.contents.identified`.

    Returns:
        The samples with their splits and groups.

    Raises:
        InputError: a value is missing or unknown, a picture cannot be
            read or is in two splits, or a metric is unknown.
    """
    check_classes(samples, classes)
    require(
        samples,
        "class",
        [s for s in samples if s.label is None],
        f"{UNLABELLED}, or calibrate one setting for all (--one-class, one_class=True)",
    )
    require(samples, "image", [s for s in samples if not s.media], "every sample needs a picture")
    lacking = [s for s in samples if answers and not s.answers]
    require(samples, "answers", lacking, "the score compares with them; see docs/guide/without-answers.md")
    for sample in samples:
        try:
            metric(sample.metric or EXACT)
            if sample.answers:
                check_references(sample)
        except InputError as error:
            raise InputError(f"sample {sample.id!r}: {error}") from error
    _check_readable(samples, hints)
    every = divided(samples, hints)
    warn_of_lookalikes(every, hints)
    return every


def _check_readable(samples: Sequence[Sample], hints: Path | None) -> None:
    shown = [(sample, one.picture) for sample in samples for one in sample.alone]
    _, broken = identified((picture for _, picture in shown), hints)
    if not broken:
        return
    first, picture = next((sample, picture) for sample, picture in shown if picture in broken)
    home = samples.home if isinstance(samples, Samples) else "the working directory"
    reason = broken[picture]
    what = "does not exist" if reason == os.strerror(errno.ENOENT) else f"cannot be read ({reason})"
    more = f" ({len(broken)} pictures are such)" if len(broken) > 1 else ""
    where = f"paths are relative to {home}; mend the path"
    if ":/" in str(picture):
        where = "addresses are not followed; fetch the pictures and give their paths"
    elif "\\" in str(picture):
        where = "here directories are divided by /, not by \\; mend the path"
    raise InputError(
        f"sample {first.id!r} names the picture {picture}, which {what}{more}; {where}, or leave the sample out"
    )


def divided(samples: Sequence[Sample], hints: Path | None = None) -> list[Sample]:
    """Samples with their groups and splits: those that the table gives, and by picture where it gives none.

    Args:
        samples: that may have splits.
        hints: see `clasp_calib.common.contents.identified`.

    Raises:
        InputError: pictures cannot be read, or one stands in two splits.
    """
    every = grouped(samples, hints)
    given = given_splits(every)
    return [s if s.split else replace(s, split=given.get(s.cluster) or split_of(s)) for s in every]


def given_splits(samples: Sequence[Sample]) -> dict[str, str]:
    """Cluster -> the split that the table gives it.

    Raises:
        InputError: two samples of a cluster are given to different splits.
    """
    first: dict[str, tuple[str, int]] = {}
    for place, sample in enumerate(samples):
        if sample.split and (given := first.setdefault(sample.cluster, (sample.split, place)))[0] != sample.split:
            other = samples[given[1]]
            one, two = (" and ".join(map(str, s.media)) for s in (other, sample))
            same = f"the picture {one} is" if one == two else f"the pictures {one} and {two} are the same, and"
            raise InputError(
                f"{same} in the splits {other.split!r} (sample {other.id!r}) and {sample.split!r} (sample "
                f"{sample.id!r}); a picture that was tuned on tells nothing in a test: give it to one, or remove the "
                "column 'split' and have all pictures divided"
            )
    return {cluster: split for cluster, (split, _) in first.items()}


def check_classes(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """Refuse samples of other classes than these; those without one pass.

    Raises:
        InputError: there is one.
    """
    for sample in samples:
        if sample.label is not None and sample.label not in classes:
            raise InputError(f"sample {sample.id!r} has class {sample.label!r}; expected one of {', '.join(classes)}")


def split_of(sample: Sample) -> str:
    """The split of a sample by the hash of its cluster."""
    digest = hashlib.sha256(sample.cluster.encode()).digest()
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


def require(samples: Sequence[Sample], column: str, lacking: Sequence[Sample], advice: str) -> None:
    """Refuse samples of which some are ``lacking`` a column.

    Raises:
        InputError: with their number, the first of them, and the advice.
    """
    if lacking:
        name = samples.name if isinstance(samples, Samples) else "the samples"
        raise InputError(
            f"{name}: {len(lacking)} of {len(samples)} samples have no {column!r} "
            f"(first id {lacking[0].id!r}); {advice}"
        )
