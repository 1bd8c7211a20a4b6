"""How far two labellings of the same questions agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_set import Samples


@dataclass(frozen=True)
class Agreement:
    """Two labelings of the same rows beside each other."""

    rows: int
    agreement: float
    """Share of rows with the same label, in [0, 1]."""
    kappa: float | None
    """Cohen's kappa; None where both give every row one and the same label, and chance explains everything."""
    count_variance: float
    """Mean squared difference of the two counts of a label, counts in percent of the rows.

    Our choice: Table 24 of the paper gives a "count variance" of each router model against the default one, which
    is 0 for itself, without its formula.
    """
    pairs: dict[tuple[str, str], int]
    """(first label, second label) -> rows."""


def compare_labels(first: Samples, second: Samples) -> Agreement:
    """Compare two labellings of the same samples, matched by id.

    Raises:
        InputError: a sample without a class, or one that only one of them has or that asks another question there.
    """
    labels = []
    for samples in (first, second):
        if lacking := [sample.id for sample in samples if sample.label is None]:
            raise InputError(
                f"{samples.name}: {len(lacking)} of {len(samples)} samples have no class (first id {lacking[0]!r}); "
                "label them with `clasp-calib label`"
            )
        labels.append({sample.id: str(sample.label) for sample in samples})
    here, there = labels
    if missing := sorted(here.keys() ^ there.keys()):
        raise InputError(
            f"{first.name} has {len(here)} rows and {second.name} {len(there)}, and {len(missing)} ids (such as "
            f"{missing[0]!r}) are in one of them only; expected two labellings of the same rows"
        )
    questions = {sample.id: sample.question for sample in first}
    if other := [sample for sample in second if sample.question != questions[sample.id]]:
        raise InputError(
            f"the id {other[0].id!r} stands for {questions[other[0].id]!r} in {first.name} and for "
            f"{other[0].question!r} in {second.name} ({len(other)} ids are such); give both tables the same ids"
        )
    return agreement(list(here.values()), [there[name] for name in here], sorted({*here.values(), *there.values()}))


def agreement(first: Sequence[str], second: Sequence[str], labels: Sequence[str]) -> Agreement:
    """Compare two labels a row.

    Args:
        first: one label a row.
        second: one label a row, in the same order.
        labels: those over which the variance's mean is taken.

    Raises:
        ValueError: there are no rows, or not as many of one as of the other.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"expected as many labels of one as of the other, and some; got {len(first)}, {len(second)}")
    rows = len(first)
    same = sum(a == b for a, b in zip(first, second, strict=True)) / rows
    ours, theirs = Counter(first), Counter(second)
    chance = sum(ours[label] * theirs[label] for label in ours) / rows**2
    kappa = None if chance == 1 else (same - chance) / (1 - chance)
    differences = [100 * (ours[label] - theirs[label]) / rows for label in labels]
    variance = sum(difference**2 for difference in differences) / len(labels)
    return Agreement(rows, same, kappa, variance, dict(Counter(zip(first, second, strict=True))))
