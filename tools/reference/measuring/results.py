"""Scores of one split as accuracies and paired differences, by class and macro, each with its interval."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from clasp_calib.common.errors import InputError
from clasp_calib.common.samples import CLASSES, Sample
from tools.reference.measuring.evidence import RESAMPLES, Paired, holm, paired
from tools.reference.measuring.score_journal import Scores
from tools.reference.measuring.settings import Setting

MACRO = "macro"
BLIND = "blind"
"""What the question-only baseline's hits are recorded under."""
Way = str | Setting | Mapping[str, Setting]
"""A setting, or one for each class."""


@dataclass(frozen=True)
class Results:
    """What was measured on one split."""

    samples: Sequence[Sample]
    scores: Scores
    seed: int = 0
    resamples: int = RESAMPLES

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes that occur, in the package's order."""
        return tuple(label for label in CLASSES if any(s.label == label for s in self.samples))

    @cached_property
    def pictures(self) -> int:
        """How many pictures the questions are about."""
        return len({s.image for s in self.samples})

    @cached_property
    def fewest(self) -> int:
        """Questions of the class that has fewest."""
        return min(sum(s.label == label for s in self.samples) for label in self.classes)

    def mean(self, way: Way) -> dict[str, Paired]:
        """Class or ``macro`` -> accuracy.

        Raises:
            InputError: it was not measured.
        """
        return dict(self._tested(way, None, (*self.classes, MACRO)))

    def differences(self, way: Way, other: Way) -> dict[str, Paired]:
        """Class -> accuracy of one way minus the other's, on the same questions; p values corrected over classes.

        Raises:
            InputError: one was not measured.
        """
        found = dict(self._tested(way, other, self.classes))
        return corrected(found)

    def macro(self, way: Way, other: Way) -> Paired:
        """The same for the mean over classes; its p value is not corrected.

        Raises:
            InputError: one was not measured.
        """
        return dict(self._tested(way, other, (MACRO,)))[MACRO]

    def difference(self, label: str, way: Way, other: Way) -> Paired:
        """The same for one class; its p value is not corrected.

        Raises:
            InputError: one was not measured.
        """
        return dict(self._tested(way, other, (label,)))[label]

    def _tested(self, way: Way, other: Way | None, labels: Sequence[str]) -> Iterator[tuple[str, Paired]]:
        for label in labels:
            of = [s for s in self.samples if label in (s.label, MACRO)]
            values = [self._score(s, way) - (0.0 if other is None else self._score(s, other)) for s in of]
            groups = [str(s.label) for s in of] if label == MACRO else None
            yield label, paired(values, [str(s.image) for s in of], groups, self.seed, self.resamples)

    def _score(self, sample: Sample, way: Way) -> float:
        setting = way[str(sample.label)] if isinstance(way, Mapping) else way
        name = setting if isinstance(setting, str) else setting.name
        try:
            return self.scores[sample.id][name]
        except KeyError:
            raise InputError(
                f"{name!r} was not measured on the question {sample.id!r}; "
                "run `python -m tools.reference.measure` for its split to the end"
            ) from None


def corrected(found: Mapping[str, Paired]) -> dict[str, Paired]:
    """A family of differences with Holm's p values in place of their own."""
    p_values = holm({name: one.p for name, one in found.items()})
    return {
        name: Paired(one.difference, one.low, one.high, p_values[name], one.samples, one.pictures)
        for name, one in found.items()
    }
