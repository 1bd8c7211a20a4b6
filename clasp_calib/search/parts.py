"""Whose samples are searched on: those of each class, and a balanced mix of all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from clasp_calib.calib.dataset import by_class, of_split
from clasp_calib.common.samples import Sample
from clasp_calib.search.confirm import LEVEL

ALL = "all classes"
"""Stands for a class in the search of one setting for all of them; not a slug, so that no class is called so."""


@dataclass(frozen=True)
class ClassSamples:
    """Samples of one class, each split in an order that was shuffled once."""

    calibration: tuple[Sample, ...]
    selection: tuple[Sample, ...]

    @property
    def decoded(self) -> bool:
        """Whether the final is decoded and scored by the metrics; without answers it is scored by the objective."""
        return all(sample.answers for sample in self.selection)


def divide(
    samples: Sequence[Sample], classes: Sequence[str], per_class: int, seed: int, mixed: bool
) -> dict[str, ClassSamples]:
    """The parts by class; classes without calibration samples are left out.

    Args:
        samples: of all splits.
        classes: slugs, in order.
        per_class: samples of a class in each split, at most.
        seed: of the order.
        mixed: add `ALL`, the classes' samples in turns and as many of them as of one class at most, if there are two.

    Raises:
        InputError: there are no calibration samples.
    """
    calibration = by_class(of_split(samples, "calibration"), classes, per_class, seed)
    selection = by_class([s for s in samples if s.split == "selection"], classes, per_class, seed)
    parts = {label: ClassSamples(tuple(of), tuple(selection.get(label, ()))) for label, of in calibration.items()}
    if mixed and len(parts) > 1:
        turns = [_in_turns([getattr(part, split) for part in parts.values()]) for split in ("calibration", "selection")]
        parts[ALL] = ClassSamples(*(tuple(of[:per_class]) for of in turns))
    return parts


def counts(parts: Mapping[str, ClassSamples], samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Class -> split -> how many of its samples are searched, decide, or may be evaluated on."""
    test = Counter(sample.label for sample in samples if sample.split == "test")
    return {
        label: {"calibration": len(part.calibration), "selection": len(part.selection), "test": test[label]}
        for label, part in parts.items()
        if label != ALL
    }


def undecided(parts: Mapping[str, ClassSamples], classes: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """What these samples cannot decide, a sentence each."""
    found = []
    if missing := [label for label in classes if label not in parts]:
        found.append(f"{', '.join(missing)}: no calibration samples, so the model's own setting is kept")
    for label, part in parts.items():
        pictures = len({sample.cluster for sample in part.selection})
        if not pictures:
            found.append(f"{label}: no selection samples, so whatever leads on the calibration samples is taken")
        elif 0.5**pictures > LEVEL:
            found.append(
                f"{label}: luck alone gives any gain on the {pictures} pictures of its selection samples in "
                f"{0.5**pictures:.0%} of cases, and above {LEVEL:.0%} the model's own setting is kept"
            )
    if not any(sample.split == "test" for sample in samples):
        found.append("no test samples, so nothing can be evaluated")
    return found


def _in_turns(groups: Sequence[Sequence[Sample]]) -> list[Sample]:
    return [sample for row in zip_longest(*groups) for sample in row if sample is not None]
