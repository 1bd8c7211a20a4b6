"""What a labelling came to: the balance of classes, who decided, and what the overriding rules changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import pyarrow as pa
import pyarrow.compute as pc

from clasp_calib.common.errors import InputError
from clasp_calib.common.row_blocks import rows_of
from clasp_calib.common.text_tables import html_table, markdown_table, text_table
from clasp_calib.router_labeling.embedders import by_packaged_embedder
from clasp_calib.router_labeling.fallback import packaged_scheme
from clasp_calib.router_labeling.labelers import by_keywords
from clasp_calib.router_labeling.language import NotEnglish, not_english
from clasp_calib.router_labeling.replies import class_answered
from clasp_calib.router_labeling.table import LABEL_COLUMNS, gold_classes
from clasp_calib.router_labeling.taxonomy import Taxonomy


@dataclass(frozen=True)
class LabelReport:
    """Counts of a labelled table. Printed, it says the main things; Markdown and notebooks show the matrices too."""

    rows: int
    """Rows of the table."""
    classes: Mapping[str, int]
    """Class -> rows."""
    sources: Mapping[str, int]
    """Who decided (``llm``, ``embedding``, ``rule``, ``gold``, ``default``) -> rows."""
    overridden: Mapping[tuple[str, str], int]
    """(class that the language model named, class that a rule gave instead) -> rows; equal where only the intent, or
    nothing, changed."""
    confusion: Mapping[str, Mapping[tuple[str, str], int]]
    """``before`` and ``after`` the overrides: (gold class, class) -> rows, of tables with a column ``gold_class``."""
    failed: Mapping[str, str]
    """Question -> why a language model gave it no label; it has the default intent."""
    not_english: NotEnglish | None = None
    """Questions that are no English ones, if more than a few were shown to who knows English alone: keyword rules, or
    the packaged embedding."""

    @property
    def agreement(self) -> dict[str, float]:
        """Share of rows whose class is the gold one, before and after; empty without gold."""
        return {
            when: sum(n for (gold, given), n in pairs.items() if gold == given) / sum(pairs.values())
            for when, pairs in self.confusion.items()
            if pairs
        }

    def to_markdown(self) -> str:
        """The report as a page."""
        parts = ["# Labels"]
        for title, header, rows in self._tables():
            parts += [f"## {title}"] if title else []
            parts.append(markdown_table(header, rows))
        if self.not_english:
            parts.append(f"{self.not_english}. What labelled them knows English alone.")
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        counts = [[name, str(number)] for name, number in self.classes.items()]
        lines = [f"{self.rows} questions", text_table(["class", "questions"], counts)]
        lines.append(f"decided by: {', '.join(f'{source} {number}' for source, number in self.sources.items())}")
        changed = {pair: number for pair, number in self.overridden.items() if pair[0] != pair[1]}
        if self.overridden:
            total, moved = sum(self.overridden.values()), sum(changed.values())
            lines.append(f"rules corrected {total} intents that the model gave, and so the class of {moved} questions")
        for (before, after), number in sorted(changed.items(), key=lambda item: -item[1]):
            lines.append(f"  {before} -> {after}: {number}")
        if self.agreement:
            lines.append(f"agreement with the gold classes in the table: {self.agreement['after']:.1%}")
        if self.overridden and self.agreement:
            lines.append(f"  before the overrides: {self.agreement['before']:.1%}")
        if self.failed:
            question, reason = next(iter(self.failed.items()))
            lines.append(f"{len(self.failed)} questions could not be labelled, such as {question!r}: {reason}")
        if self.not_english:
            lines.append(f"{self.not_english}; what labelled them knows English alone")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        told = (
            f"<p>{escape(str(self.not_english))}; what labelled them knows English alone</p>"
            if self.not_english
            else ""
        )
        return "".join(html_table(header, rows, title) for title, header, rows in self._tables()) + told

    def _tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and rows of each."""
        shares = [[name, str(n), f"{n / self.rows:.1%}"] for name, n in self.classes.items()]
        tables = [
            ("", ["class", "questions", "share"], shares),
            ("", ["decided by", "questions"], [[source, str(n)] for source, n in self.sources.items()]),
        ]
        if self.overridden:
            title = "What rules made of the model's classes"
            tables.append((title, *self._matrix(self.overridden, "the model said \\ overridden to")))
        for when, pairs in self.confusion.items():
            if pairs:
                title = f"Against the gold classes, {when} overrides: {self.agreement[when]:.1%} right"
                tables.append((title, *self._matrix(pairs, "gold \\ given")))
        return tables

    def _matrix(self, pairs: Mapping[tuple[str, str], int], corner: str) -> tuple[list[str], list[list[str]]]:
        names = list(self.classes)
        return [corner, *names], [[row, *(str(pairs.get((row, column), 0)) for column in names)] for row in names]


def label_report(labelled: pa.Table, taxonomy: Taxonomy) -> LabelReport:
    """Count what `label_table` gave.

    What a model had said before a rule overrode it stands in the column ``raw``.

    Args:
        labelled: as `label_table` gives it; a column ``gold_class`` is optional.
        taxonomy: the one that it was labelled with.

    Raises:
        InputError: the table lacks a column that labelling adds, or has a gold class that is none.
    """
    if lacking := [name for name in LABEL_COLUMNS if name not in labelled.column_names]:
        raise InputError(f"the samples have no column {lacking[0]!r}; label them first")
    overridden: Counter[tuple[str, str]] = Counter()
    confusion: dict[str, Counter[tuple[str, str]]] = {"before": Counter(), "after": Counter()}
    counts: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    failed = {}
    gold = gold_classes(labelled, taxonomy) or [None] * labelled.num_rows
    for row, right in zip(rows_of(labelled, "class", "source", "raw", "question"), gold, strict=True):
        after, source, raw = row["class"], row["source"], row["raw"]
        before = after
        if source == "rule" and raw:
            before = class_answered(raw, taxonomy)
            overridden[before, after] += 1
        elif source == "default" and raw:
            failed[row["question"]] = raw
        if right is not None:
            confusion["before"][right, before] += 1
            confusion["after"][right, after] += 1
        counts[after] += 1
        sources[source] += 1
    return LabelReport(
        rows=labelled.num_rows,
        classes={name: counts[name] for name in taxonomy.classes},
        sources=dict(sources),
        overridden=dict(overridden),
        confusion=confusion,
        failed=failed,
        not_english=_not_english(labelled),
    )


def _not_english(labelled: pa.Table) -> NotEnglish | None:
    """Of what was labelled by who knows English alone.

    Rules of one's own may know other languages: of theirs only questions count that none of them matches.
    """
    packaged = packaged_scheme().rules.digest
    rules = {name: by_keywords(name) for name in pc.unique(labelled["labeler"]).to_pylist() if name}
    english = {name for name, digest in rules.items() if digest is not None or by_packaged_embedder(name)}
    own = {name for name in english if rules[name] not in (None, packaged)}
    shown = (row for row in rows_of(labelled, "question", "source", "labeler") if row["labeler"] in english)
    return not_english((row["question"], row["labeler"] not in own or row["source"] == "default") for row in shown)
