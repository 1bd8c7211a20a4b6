"""A table as it was reproduced: beside the paper's numbers, or, of a rehearsal, alone and under a watermark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clasp_calib.common.text_tables import html_table, markdown_table
from clasp_calib.recipes.recipe_schema import UNPRUNED, RecipeColumn, RecipeRow
from clasp_calib.recipes.registry import PaperTable

WATERMARK = "REHEARSAL: embedded model and benchmark, not the paper's. These numbers say nothing of the paper's table."
NEVER_RUN = "With full-size weights no recipe has been run by the authors of this package."
NOTHING = "–"
Values = Mapping[tuple[str, str], Mapping[str, float]]
"""Group and name of a row -> column -> what was measured."""


@dataclass(frozen=True)
class ReproductionReport:
    """A table of the paper, run again."""

    table: int
    """Its number."""
    title: str
    """What it is of."""
    rehearsed: bool
    """Whether it is of the embedded model."""
    header: Sequence[str] = field(repr=False)
    """Of the columns."""
    rows: Sequence[Sequence[str]] = field(repr=False)
    """Cells, as they are printed."""
    values: Sequence[Mapping[str, Any]] = field(repr=False)
    """The same rows as numbers."""
    notes: Sequence[str] = field(default=(), repr=False)
    """What is to be known of the numbers, and what is not there and why."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """Markdown and JSON, as they were written."""

    @property
    def heading(self) -> str:
        """Number and title; of a rehearsal with the watermark."""
        name = f"Table {self.table}: {self.title}"
        return f"{name} [{WATERMARK}]" if self.rehearsed else name

    def to_markdown(self) -> str:
        """The table with its notes; of a rehearsal between watermarks."""
        mark = [f"> **{WATERMARK}**"] if self.rehearsed else []
        title = f"# Table {self.table}: {self.title}"
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join([*mark, title, markdown_table(self.header, self.rows), *filter(None, [notes]), *mark]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        mark = {"watermark": WATERMARK} if self.rehearsed else {}
        told = {"table": self.table, "title": self.title, "rehearsed": self.rehearsed}
        return {**mark, **told, "rows": [{**mark, **row} for row in self.values], "notes": list(self.notes)}

    def _repr_html_(self) -> str:
        return html_table(self.header, self.rows, self.heading)


def beside_paper(table: PaperTable, measured: Values, files: tuple[Path, ...] = ()) -> ReproductionReport:
    """Every row with what was measured, what the paper printed, and the difference.

    Args:
        table: the recipe.
        measured: of the columns that tasks and costs fill; shares of the unpruned row are computed here.
        files: where it will be written.
    """
    found = _with_shares(table, measured)
    rows, values = [], []
    for row in table.recipe.rows:
        own = found.get((row.group, row.name), {})
        cells = {key: _cell(column, own.get(key), row.paper.get(key)) for key, column in table.columns.items()}
        rows.append([f"{row.group}: {row.name}" if row.group else row.name, *cells.values()])
        numbers = {key: _numbers(own.get(key), row.paper.get(key)) for key in table.columns}
        values.append({**_named(row), "columns": numbers, **({"not run": row.missing} if row.missing else {})})
    header = ["row", *(f"{column.title} (paper, difference)" for column in table.columns.values())]
    notes = [*(f"Not measured: {one}" for one in table.lacking), *table.notes]
    return ReproductionReport(table.recipe.table, table.recipe.title, False, header, rows, values, notes, files)


def _with_shares(table: PaperTable, measured: Values) -> dict[tuple[str, str], dict[str, float]]:
    """What was measured, and of each row the mean share of the unpruned one, where all of the paper's tasks are."""
    found = {key: dict(of) for key, of in measured.items()}
    shares = [key for key, column in table.columns.items() if column.retained]
    whole = next((found.get((row.group, row.name)) for row in table.recipe.rows if row.by == UNPRUNED), None)
    lost = any(column.benchmark and column.missing for column in table.columns.values())
    if whole is None or lost:
        # A mean over other benchmarks than the paper's is another number.
        return found
    for of in found.values():
        if all(key in of and whole.get(key) for key in table.tasks):
            share = 100 * sum(of[key] / whole[key] for key in table.tasks) / len(table.tasks)
            of.update(dict.fromkeys(shares, share))
    return found


def _named(row: RecipeRow) -> dict[str, Any]:
    return {"row": row.name, "group": row.group, "by": row.by, "budget": row.budget}


def _numbers(own: float | None, paper: float | None) -> dict[str, float | None]:
    difference = None if own is None or paper is None else own - paper
    return {"measured": own, "paper": paper, "difference": difference}


def _cell(column: RecipeColumn, own: float | None, paper: float | None) -> str:
    digits = column.digits
    if own is None:
        return NOTHING if paper is None else f"{NOTHING} ({paper:.{digits}f}, {NOTHING})"
    if paper is None:
        return f"{own:.{digits}f} ({NOTHING}, {NOTHING})"
    return f"{own:.{digits}f} ({paper:.{digits}f}, {own - paper:+.{digits}f})"
