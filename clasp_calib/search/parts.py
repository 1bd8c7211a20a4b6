"""Whose samples are searched on: those of each class, of the splits that a search may see, in one order."""

from collections import Counter
from collections.abc import Mapping, Sequence

from clasp_calib.calib.dataset import by_class, of_split
from clasp_calib.common.samples import Sample

Pools = Mapping[str, tuple[Sample, ...]]
"""Class -> its samples, in an order that was shuffled once."""
FEW = 8
"""Pictures below which a class's own samples say little. Our choice: the fewest that the choice was studied with."""


def pools_of(
    samples: Sequence[Sample], classes: Sequence[str], per_class: int, seed: int
) -> dict[str, tuple[Sample, ...]]:
    """The calibration and selection samples of each class together; classes without any are left out.

    Args:
        samples: of all splits.
        classes: slugs, in order.
        per_class: samples of a class, at most.
        seed: of the order.

    Raises:
        InputError: there are no calibration samples.
    """
    searched = [*of_split(samples, "calibration"), *(s for s in samples if s.split == "selection")]
    return {label: tuple(of) for label, of in by_class(searched, classes, per_class, seed).items()}


def counts(pools: Pools, samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Class -> how many of its samples are searched on, and how many may be evaluated on."""
    test = Counter(sample.label for sample in samples if sample.split == "test")
    return {label: {"search": len(pool), "test": test[label]} for label, pool in pools.items()}


def undecided(pools: Pools, classes: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """What these samples cannot decide, a sentence each."""
    found = []
    if missing := [label for label in classes if label not in pools]:
        found.append(f"{', '.join(missing)}: no samples, so the model's own setting is kept")
    pictures = {label: len({sample.cluster for sample in pool}) for label, pool in pools.items()}
    if few := [f"{label} ({count})" for label, count in pictures.items() if count < FEW]:
        found.append(
            f"fewer than {FEW} pictures: {', '.join(few)}; what is chosen there is mostly what is good elsewhere"
        )
    if not any(sample.split == "test" for sample in samples):
        found.append("no test samples, so nothing can be evaluated")
    return found
