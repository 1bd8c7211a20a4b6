"""Drawing calibration, selection and test samples from a large labelled table, no picture in two of them."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clasp_calib.calib.dataset import SHARES, given_splits
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
    pictures: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: s.id):
        pictures[sample.cluster].append(sample)
    order = sorted(pictures)
    random.Random(seed).shuffle(order)
    frequency = Counter(str(sample.label) for sample in samples)
    # What a quota counts: the samples of a class, or all.
    kinds = {sample.id: str(sample.label) if balanced else "all" for sample in samples}
    rarest = {name: min((frequency[kinds[s.id]], kinds[s.id]) for s in pictures[name]) for name in order}
    have: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    places: dict[str, str] = {}
    given = given_splits(samples)
    # Pictures whose split is fixed come first, since the others make up for them.
    for name in sorted(order, key=lambda name: (name not in given, rarest[name])):
        fixed, kind = given.get(name), rarest[name][1]
        split = fixed or min(wanted, key=lambda split: have[split][kind] / wanted[split])
        if split in wanted:
            places[name] = split
            have[split].update(kinds[sample.id] for sample in pictures[name])
    taken: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    splits = {}
    for name in order:
        for sample in pictures[name]:
            kind = kinds[sample.id]
            if name in places and taken[places[name]][kind] < wanted[places[name]]:
                splits[sample.id] = places[name]
                taken[places[name]][kind] += 1
    counts = {label: dict.fromkeys(wanted, 0) for label in classes}
    for sample in samples:
        if sample.id in splits:
            counts[str(sample.label)][splits[sample.id]] += 1
    missing = {
        kind: {split: wanted[split] - taken[split][kind] for split in wanted if taken[split][kind] < wanted[split]}
        for kind in (classes if balanced else ["all"])
    }
    return Drawn(len(samples), splits, counts, wanted, {kind: splits for kind, splits in missing.items() if splits})
