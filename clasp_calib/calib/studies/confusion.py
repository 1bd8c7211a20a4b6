"""How a labeler or a router errs: for questions of each class, which class it gave to how many of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.common.errors import InputError


@dataclass(frozen=True)
class Confusion:
    """Counts of questions by their class and the class that they were given.

    Raises:
        InputError: a class is named twice, or the counts are no square of whole numbers over the classes.
    """

    name: str
    """Of who gave the classes."""
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    """``[true, given]``, classes in this order."""

    def __post_init__(self) -> None:
        """Refuse what is no confusion."""
        if len(set(self.classes)) < len(self.classes):
            raise InputError(f"the confusion {self.name!r} names a class twice: {', '.join(self.classes)}; mend it")
        size = len(self.classes)
        whole = np.issubdtype(self.counts.dtype, np.integer)
        if self.counts.shape != (size, size) or not whole or bool((self.counts < 0).any()):
            raise InputError(
                f"the confusion {self.name!r} has counts of shape {self.counts.shape} and type {self.counts.dtype} for "
                f"{size} classes; expected whole numbers of questions, 0 or more, [true class, given class]"
            )

    @classmethod
    def of_pairs(cls, name: str, pairs: Collection[tuple[str, str]]) -> "Confusion":
        """Count (true class, given class) of each question."""
        classes = tuple(sorted({label for pair in pairs for label in pair}))
        counts = np.zeros((len(classes), len(classes)), np.int64)
        for true, given in pairs:
            counts[classes.index(true), classes.index(given)] += 1
        return cls(name, classes, counts)

    def shares(self, classes: Sequence[str], needed: Sequence[str]) -> NDArray[np.float64]:
        """P(given class | true class), ``[true, given]`` over ``classes``; 0 for true classes without questions.

        Args:
            classes: an artifact's.
            needed: those of them whose rows are used.

        Raises:
            InputError: there are no questions of a needed class, or one was given a class that is not among these.
        """
        own = {label: place for place, label in enumerate(self.classes)}
        found = np.zeros((len(classes), len(classes)))
        asked = self.questions(needed)
        if lacking := [label for label in needed if not asked[label]]:
            raise InputError(
                f"the confusion {self.name!r} has no questions of the class {', '.join(lacking)}, of which there are "
                "samples; give one that has some of every class, or take samples of the others"
            )
        for label in needed:
            row = self.counts[own[label]]
            given = {name: int(count) for name, count in zip(self.classes, row, strict=True) if count}
            if strange := sorted(set(given) - set(classes)):
                raise InputError(
                    f"the confusion {self.name!r} gives questions of {label!r} the class {', '.join(strange)}, which "
                    f"the artifact does not have (it has {', '.join(classes)}); give one of these classes"
                )
            for name, count in given.items():
                found[classes.index(label), classes.index(name)] = count / row.sum()
        return found

    def questions(self, of: Sequence[str]) -> dict[str, int]:
        """How many questions there are of each class."""
        found = dict(zip(self.classes, self.counts.sum(1).tolist(), strict=True))
        return {label: found.get(label, 0) for label in of}
