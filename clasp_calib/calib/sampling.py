"""Drawing calibration, selection and test samples from a large labelled table, no picture in two of them."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from clasp_calib.calib.dataset import SHARES, given_splits
from clasp_calib.common.row_blocks import column_of
from clasp_calib.common.samples import Sample


@dataclass(frozen=True)
class Drawn:
    """What was drawn of a table."""

    rows: int
    """Samples that it was drawn of."""
    splits: Mapping[str, str]
    """Id of a sample that was drawn -> its split."""
    counts: Mapping[str, Mapping[str, int]]
    """Class -> split -> samples."""
    wanted: Mapping[str, int]
    """Split -> samples wanted of each class; of a natural draw, of all classes together."""
    short: Mapping[str, Mapping[str, int]]
    """Class -> split -> samples that are missing; of a natural draw, under the key ``all``."""


def draw(samples: Sequence[Sample], classes: Sequence[str], per_class: int, balanced: bool, seed: int) -> Drawn:
    """Draw samples and divide them by picture.

    Balanced: ``per_class`` of each class for calibration, and half as many each for selection and test (`SHARES`), or
    as many as there are. Pictures with rare classes are dealt first, each to the split that lacks most of its rarest
    class, so that what there is of a class is divided in these shares too. Natural: as many samples in all, the classes
    as they come.

    Pictures that are the same, or that a sample shows together, stay together. A picture that stands in a split
    already, because a sample of it does, stays in it; samples of other splits, such as ``train``, are left out with
    their pictures. Samples without a picture are pictures of their own. The order of the table makes no difference.

    Args:
        samples: labelled, with unique ids; as `clasp_calib.common.contents.grouped` gives them.
        classes: every class that may occur.
        per_class: calibration samples a class.
        balanced: as many of each class, or the classes as they come.
        seed: of the draw.

    Raises:
        InputError: a picture stands in two splits.
    """
    wanted = {split: max(1, round(per_class * share / SHARES[0][1])) for split, share in SHARES}
    if not balanced:
        wanted = {split: number * len(classes) for split, number in wanted.items()}
    ids, labels, names, divided = _columns(samples)
    pictures: dict[str, list[int]] = defaultdict(list)
    """Cluster -> rows of its samples, in the order of their ids."""
    for row in pc.sort_indices(ids).to_pylist():
        pictures[names[row]].append(row)
    order = sorted(pictures)
    random.Random(seed).shuffle(order)
    frequency = Counter(labels)
    # What a quota counts: the samples of a class, or all.
    kinds = labels if balanced else ["all"] * len(labels)
    rarest = {name: min((frequency[kinds[row]], kinds[row]) for row in pictures[name]) for name in order}
    have: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    places: dict[str, str] = {}
    given = given_splits(samples) if divided else {}
    # Pictures whose split is fixed come first, since the others make up for them.
    for name in sorted(order, key=lambda name: (name not in given, rarest[name])):
        fixed, kind = given.get(name), rarest[name][1]
        split = fixed or min(wanted, key=lambda split: have[split][kind] / wanted[split])
        if split in wanted:
            places[name] = split
            have[split].update(kinds[row] for row in pictures[name])
    taken: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    counts = {label: dict.fromkeys(wanted, 0) for label in classes}
    splits = {}
    for name in order:
        for row in pictures[name]:
            kind = kinds[row]
            if name in places and taken[places[name]][kind] < wanted[places[name]]:
                splits[ids[row].as_py()] = places[name]
                taken[places[name]][kind] += 1
                counts[labels[row]][places[name]] += 1
    missing = {
        kind: {split: wanted[split] - taken[split][kind] for split in wanted if taken[split][kind] < wanted[split]}
        for kind in (classes if balanced else ["all"])
    }
    return Drawn(len(samples), splits, counts, wanted, {kind: splits for kind, splits in missing.items() if splits})


def _columns(samples: Sequence[Sample]) -> tuple[pa.Array, list[str], list[str], bool]:
    """Ids, classes, clusters, and whether some have a split: of each class or cluster one text for all samples."""
    known: dict[str, str] = {}
    labels: list[str] = []
    names: list[str] = []

    divided = False

    def ids() -> Iterator[str]:
        nonlocal divided
        for sample in samples:
            divided = divided or bool(sample.split)
            for text, texts in ((str(sample.label), labels), (sample.cluster, names)):
                texts.append(known.setdefault(text, text))
            yield sample.id

    return column_of(ids(), pa.string()).combine_chunks(), labels, names, divided
