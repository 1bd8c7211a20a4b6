"""What a labelling came to: the balance of classes, who decided, and what the overriding rules changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from clasp_calib.router_labeling.replies import BadReplyError, read_intent
from clasp_calib.router_labeling.taxonomy import Taxonomy


@dataclass(frozen=True)
class LabelReport:
    """Counts of a labelled table."""

    rows: int
    classes: Mapping[str, int]
    sources: Mapping[str, int]
    overridden: Mapping[tuple[str, str], int]
    """(class that the language model named, class that a rule gave instead) -> rows; equal where only the intent, or
    nothing, changed."""
    confusion: Mapping[str, Mapping[tuple[str, str], int]]
    """``before`` and ``after`` the overrides: (gold class, class) -> rows, of tables with a column ``gold_class``."""

    @property
    def agreement(self) -> dict[str, float]:
        """Share of rows whose class is the gold one, before and after; empty without gold."""
        return {
            when: sum(n for (gold, given), n in pairs.items() if gold == given) / sum(pairs.values())
            for when, pairs in self.confusion.items()
            if pairs
        }


def label_report(labelled: pa.Table, taxonomy: Taxonomy) -> LabelReport:
    """Count what `label_table` gave.

    What a model had said before a rule overrode it stands in the column ``raw``.

    Args:
        labelled: columns ``class``, ``source``, ``raw`` and, optional, ``gold_class``.
        taxonomy: the one that it was labelled with.
    """
    after: list[str] = labelled["class"].to_pylist()
    sources: list[str] = labelled["source"].to_pylist()
    before = list(after)
    overridden: Counter[tuple[str, str]] = Counter()
    for row, (source, raw) in enumerate(zip(sources, labelled["raw"].to_pylist(), strict=True)):
        if source == "rule" and raw:
            try:
                before[row] = taxonomy.class_of(read_intent(raw, None, taxonomy))
            except BadReplyError:
                before[row] = taxonomy.default_class
            overridden[before[row], after[row]] += 1
    gold = labelled["gold_class"].to_pylist() if "gold_class" in labelled.column_names else []
    confusion = {
        when: Counter(pair for pair in zip(gold, given, strict=True) if pair[0] is not None) if gold else Counter()
        for when, given in (("before", before), ("after", after))
    }
    counts = Counter(after)
    return LabelReport(
        len(after), {c: counts[c] for c in taxonomy.classes}, dict(Counter(sources)), dict(overridden), confusion
    )


def markdown(report: LabelReport, taxonomy: Taxonomy) -> str:
    """The report as a page."""
    lines = ["# Labels", "", "| class | questions | share |", "|---|---:|---:|"]
    lines += [f"| {name} | {n} | {n / report.rows:.1%} |" for name, n in report.classes.items()]
    lines += ["", "| decided by | questions |", "|---|---:|"]
    lines += [f"| {source} | {n} |" for source, n in report.sources.items()]
    if report.overridden:
        lines += ["", "## What rules made of the model's classes", ""]
        lines += _matrix(report.overridden, taxonomy, "the model said", "overridden to")
    for when, pairs in report.confusion.items():
        if pairs:
            lines += ["", f"## Against the gold classes, {when} overrides: {report.agreement[when]:.1%} right", ""]
            lines += _matrix(pairs, taxonomy, "gold", "given")
    return "\n".join(lines) + "\n"


def _matrix(pairs: Mapping[tuple[str, str], int], taxonomy: Taxonomy, rows: str, columns: str) -> list[str]:
    names = taxonomy.classes
    return [
        f"| {rows} \\ {columns} | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
        *(f"| {row} | {' | '.join(str(pairs.get((row, column), 0)) for column in names)} |" for row in names),
    ]
