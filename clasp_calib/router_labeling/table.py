"""Labelling a sample table: one row in, one row out, in order, with everything else kept."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from clasp_calib.common.errors import InputError
from clasp_calib.common.row_blocks import blocks, cells_of, rows_of
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import Guess, Scheme
from clasp_calib.router_labeling.rules import RuleSet
from clasp_calib.router_labeling.taxonomy import Taxonomy

LABEL_COLUMNS = ("intent", "class", "confidence", "source", "rule", "raw", "labeler")
_OURS = LABEL_COLUMNS[2:]
_MACHINE_MADE = ("llm", "embedding", "rule", "default")
_Label = dict[str, Any]
"""Columns of a row; what is not in it is null."""


def label_table(
    table: pa.Table, labeler: JournalledLabeler, scheme: Scheme, classes_from_gold: bool = True
) -> pa.Table:
    """Give every row an intent and a class.

    A row that brings an ``intent`` or a ``class`` of its own keeps it as gold; the labeler is not shown it.
    Others get the labeler's guess, unless the first rule that matches the question is marked ``overrides``;
    then the rule decides. In a table that was labelled before, a row is gold only if its ``source`` is
    ``gold`` or null, so that labelling twice is labelling once.

    Args:
        table: as `clasp_calib.common.sample_table.sample_table` gives it; columns without a meaning here pass through.
        labeler: names the intents.
        scheme: maps intents to classes, and has the keyword overrides.
        classes_from_gold: ``False`` labels every row anew, whatever it brings.

    Returns:
        The table with ``intent`` and ``class`` (strings; ``intent`` is null where only a class was given),
        ``confidence`` (float64; 1 for gold and for an override; null where the labeler says none), ``source``
        (llm | embedding | rule | gold | default), ``rule`` (id or null), ``raw`` (the labeler's answer, or why there is
        none; null for gold) and ``labeler`` (its fingerprint; null for gold). Columns of these names are
        replaced where they stand; new ones come last.

    Raises:
        InputError: a gold intent or class that the taxonomy lacks, or the two at odds; columns that the labels would
            overwrite; a labeler that does not answer every question once, or with an intent of another taxonomy.
    """
    names = table.column_names
    clash = [name for name in _OURS if name in names]
    if clash and len(clash) < len(_OURS):
        raise InputError(f"the table has a column {clash[0]!r}, which the labels would overwrite; rename or remove it")
    gold_classes(table, scheme.taxonomy)

    def rows() -> Iterator[tuple[dict[str, Any], _Label | None]]:
        for row in rows_of(table, "id", "question", "intent", "class", "source"):
            yield row, _gold(row, scheme.taxonomy) if classes_from_gold else None

    guesses = labeler.label((row["question"] for row, gold in rows() if gold is None), table.num_rows)
    # Keyword rules have had their say.
    overriding = None if labeler.by_rules and labeler.scheme is scheme else scheme.rules

    def labels() -> Iterator[_Label]:
        for row, gold in rows():
            if gold is None:
                yield {**_combined(row, next(guesses), scheme.taxonomy, overriding), "labeler": labeler.fingerprint}
            else:
                yield gold

    made = _columns(labels())
    for name in LABEL_COLUMNS:
        if name in names:
            table = table.set_column(names.index(name), name, made[name])
        else:
            table = table.append_column(name, made[name])
    return table


def _columns(labels: Iterable[_Label]) -> pa.Table:
    kinds = [(name, pa.float64() if name == "confidence" else pa.string()) for name in LABEL_COLUMNS]
    return pa.Table.from_batches(
        [
            pa.record_batch(
                [pa.array([label.get(name) for label in block], kind) for name, kind in kinds], LABEL_COLUMNS
            )
            for block in blocks(labels)
        ],
        pa.schema(kinds),
    )


def gold_classes(table: pa.Table, taxonomy: Taxonomy) -> list[Any]:
    """The column ``gold_class``, which labels are compared with; nothing if there is none.

    Raises:
        InputError: there is something else in it than classes of the taxonomy, with which no label could agree.
    """
    known = {name: name for name in taxonomy.classes}
    cells = cells_of(table["gold_class"]) if "gold_class" in table.column_names else ()
    # Of each class one text for all rows.
    classes = [known.get(gold, gold) if isinstance(gold, str) else gold for gold in cells]
    if odd := [(row, gold) for row, gold in enumerate(classes) if gold is not None and gold not in taxonomy.classes]:
        raise InputError(
            f"row {odd[0][0]} has the gold_class {odd[0][1]!r} ({len(odd)} rows have such), with which no label can "
            f"agree; expected one of {', '.join(known)}; mend or remove the column"
        )
    return classes


def classes_by_hand(table: pa.Table, taxonomy: Taxonomy) -> list[str | None]:
    """Of each row the class that somebody gave it by hand: its ``gold_class``, or what `label_table` keeps as gold.

    Raises:
        InputError: it is none of the taxonomy's.
    """
    told = gold_classes(table, taxonomy) or [None] * table.num_rows
    rows = table.select([n for n in ("id", "intent", "class", "source") if n in table.column_names]).to_pylist()
    kept = [label["class"] if (label := _gold(row, taxonomy)) else None for row in rows]
    return [gold or own for gold, own in zip(told, kept, strict=True)]


def _gold(row: dict[str, Any], taxonomy: Taxonomy) -> _Label | None:
    if row.get("source") in _MACHINE_MADE:
        return None
    intent, class_ = row.get("intent"), row.get("class")
    for what, given, known in (("class", class_, taxonomy.classes), ("intent", intent, list(taxonomy.intents))):
        if given is not None and given not in known:
            raise InputError(
                f"row {row['id']!r} has the {what} {given!r}; expected one of {', '.join(known)}. Mend it, or have all "
                "rows labelled anew (--relabel)"
            )
    merged = class_ if intent is None else taxonomy.class_of(intent)
    if class_ not in (None, merged):
        raise InputError(
            f"row {row['id']!r} has the class {class_!r}, but its intent {intent!r} belongs to {merged!r}; mend it, or "
            "have all rows labelled anew (--relabel)"
        )
    return None if merged is None else {"intent": intent, "class": merged, "confidence": 1.0, "source": "gold"}


def _combined(row: dict[str, Any], guess: Guess, taxonomy: Taxonomy, overriding: RuleSet | None) -> _Label:
    if guess.intent not in taxonomy.intents:
        raise InputError(
            f"the labeler gave row {row['id']!r} the intent {guess.intent!r}; expected one of "
            f"{', '.join(taxonomy.intents)}. Give the labeler the taxonomy that the table is labelled with"
        )
    rule = overriding.match(row["question"]) if overriding else None
    if rule is not None and rule.overrides:
        guess = Guess(rule.intent, 1.0, guess.raw, "rule", rule.id)
    return {**vars(guess), "class": taxonomy.class_of(guess.intent)}
