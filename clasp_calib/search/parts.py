"""Whose samples are searched on: those of each class, and a balanced mix of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from clasp_calib.calib.dataset import by_class, of_split
from clasp_calib.common.samples import Sample

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


def _in_turns(groups: Sequence[Sequence[Sample]]) -> list[Sample]:
    return [sample for row in zip_longest(*groups) for sample in row if sample is not None]
