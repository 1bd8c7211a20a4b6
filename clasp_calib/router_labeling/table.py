"""Labelling a sample table: one row in, one row out, in order, with everything else kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.labelers import Guess, Scheme
from clasp_calib.router_labeling.taxonomy import Taxonomy

LABEL_COLUMNS = ("intent", "class", "confidence", "source", "rule", "raw", "labeler")
_OURS = LABEL_COLUMNS[2:]
_MACHINE_MADE = ("llm", "rule", "default")


@dataclass(frozen=True)
class _Label:
    intent: str | None
    class_: str
    confidence: float | None
    source: str
    rule: str | None = None
    raw: str | None = None
    labeler: str | None = None


class Labels(Protocol):
    """A labeler that keeps the order of questions, as `clasp_calib.router_labeling.journalled` makes of any."""

    @property
    def fingerprint(self) -> str:
        """JSON text of what decides a label."""
        ...

    def label(self, questions: Sequence[str]) -> Iterator[Guess]:
        """One guess for each question, in order."""
        ...


def label_table(table: pa.Table, labeler: Labels, scheme: Scheme, classes_from_gold: bool = True) -> pa.Table:
    """Give every row an intent and a class.

    A row that brings an ``intent`` or a ``class`` of its own keeps it as gold; the labeler is not shown it.
    Others get the labeler's guess, unless the first rule that matches the question is marked ``overrides``;
    then the rule decides. In a table that was labelled before, a row is gold only if its ``source`` is
    ``gold`` or null, so that labelling twice is labelling once.

    Args:
        table: columns ``question`` and, optional, ``id``, ``intent``, ``class``; others pass through.
        labeler: names the intents.
        scheme: maps intents to classes, and has the keyword overrides.
        classes_from_gold: ``False`` labels every row anew, whatever it brings.

    Returns:
        The table with ``intent`` and ``class`` (strings; ``intent`` is null where only a class was given),
        ``confidence`` (float64; 1 for gold and for an override; null where the labeler says none), ``source``
        (llm | rule | gold | default), ``rule`` (id or null), ``raw`` (the labeler's answer, or why there is
        none; null for gold) and ``labeler`` (its fingerprint; null for gold). Columns of these names are
        replaced where they stand; new ones come last.

    Raises:
        InputError: no ``question`` column or a null in it; a gold intent or class that the taxonomy lacks, or
            the two at odds; columns that the labels would overwrite; a labeler that answers too few or too
            many questions, or with an intent of another taxonomy.
    """
    rows, taxonomy = _rows(table), scheme.taxonomy
    gold = [_gold(row, taxonomy) if classes_from_gold else None for row in rows]
    asked = [row["question"] for row, label in zip(rows, gold, strict=True) if label is None]
    guesses = labeler.label(asked) if asked else iter(())
    fingerprint = labeler.fingerprint if asked else ""
    labels = []
    for row, label in zip(rows, gold, strict=True):
        labels.append(label or _combine(row, _next(guesses, len(asked)), scheme, fingerprint))
    if next(guesses, None) is not None:
        raise InputError(f"the labeler answered more than the {len(asked)} questions it was given")
    return _with_labels(table, labels)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    names = table.column_names
    if "question" not in names:
        raise InputError(f"the table has no column 'question' (it has {', '.join(names) or 'none'}); rename one")
    clash = [name for name in _OURS if name in names]
    if clash and len(clash) < len(_OURS):
        raise InputError(f"the table has a column {clash[0]!r}, which the labels would overwrite; rename or remove it")
    rows: list[dict[str, Any]] = table.select(
        [name for name in ("id", "question", "intent", "class", "source") if name in names]
    ).to_pylist()
    for number, row in enumerate(rows):
        row.setdefault("id", str(number))
        if not isinstance(row["question"], str):
            raise InputError(f"row {row['id']!r} has the question {row['question']!r}; expected a text")
    return rows


def _gold(row: dict[str, Any], taxonomy: Taxonomy) -> _Label | None:
    if row.get("source") in _MACHINE_MADE:
        return None
    intent, class_ = row.get("intent"), row.get("class")
    way_out = "Mend it, or have all rows labelled anew (--relabel)"
    if class_ is not None and class_ not in taxonomy.classes:
        raise InputError(
            f"row {row['id']!r} has the class {class_!r}; expected one of {', '.join(taxonomy.classes)}. {way_out}"
        )
    if intent is not None:
        if not isinstance(intent, str) or intent not in taxonomy.intents:
            raise InputError(
                f"row {row['id']!r} has the intent {intent!r}; expected one of {', '.join(taxonomy.intents)}. {way_out}"
            )
        merged = taxonomy.class_of(intent)
        if class_ not in (None, merged):
            raise InputError(
                f"row {row['id']!r} has the class {class_!r}, "
                f"but its intent {intent!r} belongs to {merged!r}; {way_out}"
            )
        class_ = merged
    return None if class_ is None else _Label(intent, class_, 1.0, "gold")


def _next(guesses: Iterator[Guess], asked: int) -> Guess:
    try:
        return next(guesses)
    except StopIteration:
        raise InputError(f"the labeler answered fewer than the {asked} questions it was given") from None


def _combine(row: dict[str, Any], guess: Guess, scheme: Scheme, fingerprint: str) -> _Label:
    taxonomy = scheme.taxonomy
    if guess.intent not in taxonomy.intents:
        raise InputError(
            f"the labeler gave row {row['id']!r} the intent {guess.intent!r}; expected one of "
            f"{', '.join(taxonomy.intents)}. Give the labeler the taxonomy that the table is labelled with"
        )
    rule = scheme.rules.match(row["question"])
    if rule is not None and rule.overrides:
        return _Label(rule.intent, taxonomy.class_of(rule.intent), 1.0, "rule", rule.id, guess.raw, fingerprint)
    intent, raw = guess.intent, guess.raw
    return _Label(intent, taxonomy.class_of(intent), guess.confidence, guess.source, guess.rule, raw, fingerprint)


def _with_labels(table: pa.Table, labels: list[_Label]) -> pa.Table:
    for name in LABEL_COLUMNS:
        kind = pa.float64() if name == "confidence" else pa.string()
        column = pa.array([getattr(label, "class_" if name == "class" else name) for label in labels], kind)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table
