"""Giving samples their classes: as they were labelled, by a column of their table, or one class to all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from clasp_calib.common.answer_cells import id_of, read_column
from clasp_calib.common.errors import InputError
from clasp_calib.common.fields import ClassName, describe
from clasp_calib.common.progress import note
from clasp_calib.common.sample_set import Samples
from clasp_calib.common.settings import check_kind
from clasp_calib.router_labeling.classes import LABELS, Classes
from clasp_calib.router_labeling.taxonomy import Taxonomy, load_taxonomy

MOST = 1000
"""Classes of an artifact."""
SHOWN = 5
"""Ids that a message names."""
_NAME: TypeAdapter[str] = TypeAdapter(ClassName)


@dataclass(frozen=True)
class ClassSource:
    """What says the class of a sample.

    Attributes:
        taxonomy: the one that samples were labelled by, or a YAML file of it; by default the packaged one.
        class_from: instead, a column of the table, whose values are the classes.
        default_class: the class of samples without a value in that column, which otherwise are refused.
        one_class: instead, all samples are of one class, whatever the table says.

    Raises:
        InputError: several of these, a default class without a column, or a taxonomy that cannot be used.
    """

    taxonomy: Taxonomy | str | Path | None = None
    class_from: str | None = None
    default_class: str | None = None
    one_class: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        check_kind("class_from (--class-from)", self.class_from, str, "the name of a column")
        check_kind("default_class (--default-class)", self.default_class, str, "the name of a class")
        check_kind("one_class", self.one_class, bool, "True or False")
        if not isinstance(self.taxonomy, Taxonomy | str | Path | None):
            raise InputError(f"taxonomy is {self.taxonomy!r:.100}; expected a Taxonomy, or a YAML file of one")
        told = {"taxonomy": self.taxonomy, "class_from": self.class_from, "one_class": self.one_class or None}
        if len(given := [name for name, value in told.items() if value is not None]) > 1:
            raise InputError(f"{' and '.join(given)} are given; classes come from one of them, leave the others out")
        if self.default_class is not None:
            if self.class_from is None:
                raise InputError(
                    f"default_class {self.default_class!r} is given without class_from (--class-from); a taxonomy "
                    "names its own by default_intent, leave it out"
                )
            _check_name(self.default_class, "default_class")
        if self.class_from is None and not self.one_class:
            object.__setattr__(self, "taxonomy", load_taxonomy(self.taxonomy))

    def labelled(self, samples: Samples) -> Samples:
        """The samples with their classes; those that a taxonomy's labels say are left as they are.

        Raises:
            InputError: a label is of another taxonomy; or the table has no such column, or values in it that are no
                classes.
        """
        if isinstance(self.taxonomy, Taxonomy):
            _check_labels(samples, self.taxonomy)
            return samples
        return labelled(samples, self.class_from, self.classes(()).names, self.default_class)

    def classes(self, labels: Iterable[str | None]) -> Classes:
        """The classes that there are.

        Args:
            labels: of all samples, as `labelled` gives them.
        """
        if isinstance(self.taxonomy, Taxonomy):
            return Classes.of_taxonomy(self.taxonomy)
        if self.class_from is None:
            return Classes.one()
        return Classes.of_column(self.class_from, {x for x in labels if x is not None}, self.default_class)


def labelled(samples: Samples, column: str | None, classes: Sequence[str], default: str | None = None) -> Samples:
    """Samples with the values of a column as their classes.

    Args:
        samples: of any table.
        column: its name; ``None`` makes all samples of the one class in ``classes``.
        classes: read without a column only.
        default: the class of samples without a value, of which there is a note.

    Raises:
        InputError: there is no such column; a value is missing and there is no default, or is no name of a class; or
            there are more than `MOST` different ones.
    """
    if column is None:
        return _with_classes(samples, [classes[0]] * len(samples))
    table = samples.table
    if column not in table.column_names:
        raise InputError(
            f"{samples.name} has no column {column!r} to take classes from (it has {', '.join(table.column_names)}); "
            "name one of these (--class-from, class_from=), or give the table that has it"
        )
    try:
        values = list(read_column(table[column], _value))
    except (ValueError, ArithmeticError) as error:
        raise InputError(
            f"{samples.name}: column {column!r}: {error}; a column that gives classes holds one a row"
        ) from error
    if lacking := [row for row, value in enumerate(values) if value is None]:
        ids = ", ".join(repr(samples[row].id) for row in lacking[:SHOWN]) + (", ..." if len(lacking) > SHOWN else "")
        which = f"{len(lacking)} of {len(values)} samples have no {column!r} (ids {ids})"
        if default is None:
            raise InputError(
                f"{samples.name}: {which}; fill the column, leave them out, or name the class that they get "
                "(--default-class, default_class=)"
            )
        note(f"{samples.name}: {which}, so they are of the default class {default!r}")
    found = {value for value in values if value is not None}
    if len(found) > MOST:
        raise InputError(
            f"{samples.name}: the column {column!r} has {len(found)} different values, and an artifact has at most "
            f"{MOST} classes; name a column that divides the samples into kinds, such as their task or dataset"
        )
    for value in sorted(found):
        _check_name(value, f"{samples.name}: the column {column!r}")
    return _with_classes(samples, [default if value is None else value for value in values])


def _check_labels(samples: Samples, taxonomy: Taxonomy) -> None:
    known = {None, *taxonomy.classes}
    for row, label in enumerate(samples.labels):
        if label not in known:
            raise InputError(
                f"sample {samples[row].id!r} has class {label!r}; expected one of {', '.join(taxonomy.classes)}; give "
                "the taxonomy that it was labelled by (--taxonomy, taxonomy=), or take the classes as they are "
                "(--class-from class, class_from='class')"
            )


def _value(cell: Any) -> str | None:
    text = id_of(str(cell).lower() if isinstance(cell, bool) else cell)
    return (text or "").strip() or None


def _check_name(given: str, where: str) -> None:
    try:
        _NAME.validate_python(given)
    except ValidationError as error:
        raise InputError(f"{where} has {given!r:.120} for a class: {describe(error)}") from error


def _with_classes(samples: Samples, classes: list[str | None]) -> Samples:
    column, table = pa.array(classes, pa.string()), samples.table
    if LABELS in table.column_names:
        return samples.with_table(table.set_column(table.column_names.index(LABELS), LABELS, column))
    return samples.with_table(table.append_column(LABELS, column))
