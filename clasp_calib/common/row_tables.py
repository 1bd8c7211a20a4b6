"""Rows as a reader gives them, one after another, as one table."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.answer_cells import is_nothing
from clasp_calib.common.errors import InputError
from clasp_calib.common.picture_cells import PictureCells
from clasp_calib.common.row_blocks import table_of
from clasp_calib.common.table_readers import texts_of

PICTURED = ("image", "images")
_OURS = {"answers": "answers", "id": "id"}
_BATCH = 1024


def table_of_rows(
    rows: Iterable[Mapping[str, Any] | pa.Table],
    cells: PictureCells,
    home: Path,
    name: str,
    limit: int | None = None,
) -> pa.Table:
    """The rows of a reader as a table, with texts where they had pictures.

    No more than a batch of rows is held as Python objects, and no more pictures than those of a row or a given table.

    Args:
        rows: mappings of columns, or tables of some rows.
        cells: where pictures go.
        home: what paths of pictures are relative to.
        name: what the source is called in messages.
        limit: use the first rows only.

    Raises:
        InputError: rows differ in the kinds of a column; a picture is none; an answer or id is none.
    """
    batches = _Batches(cells, home, name)
    for row in rows:
        left = None if limit is None else limit - batches.count
        if isinstance(row, pa.Table):
            batches.take_table(row[:left])
        else:
            batches.take_row(row)
        if batches.count == limit:
            break
    batches.close()
    try:
        tables = list(_alike(batches.tables))
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise InputError(f"{name}: rows differ in a column: {error}; give values of one kind") from error


@dataclass
class _Batches:
    cells: PictureCells
    home: Path
    name: str
    tables: list[pa.Table] = field(default_factory=list)
    count: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def take_table(self, table: pa.Table) -> None:
        self.close()
        pictured = [column for column in table.column_names if column in PICTURED or _is_picture(table[column].type)]
        self.tables.append(self.cells.settled(table, pictured, self.home, self.name, self.count))
        self.count += len(table)

    def take_row(self, row: Mapping[str, Any]) -> None:
        try:
            read = texts_of(row, _OURS, lambda cell: None if is_nothing(cell) else cell)
        except ValueError as error:
            raise InputError(f"{self.name}: row {self.count}: {error}") from error
        for column in PICTURED:
            if column in read:
                read[column] = self.cells.settled_cell(read[column], self.home, self.name, self.count)
        self._rows.append(read)
        self.count += 1
        if len(self._rows) == _BATCH:
            self.close()

    def close(self) -> None:
        """Make a table of the rows that wait."""
        rows, self._rows = self._rows, []
        for column in PICTURED:
            if any(isinstance(row.get(column), list) for row in rows):
                for row in rows:
                    row[column] = _listed(row.get(column))
        first = self.count - len(rows)
        try:
            if rows:
                self.tables.append(table_of(rows))
        except ValueError as error:
            raise InputError(f"{self.name}: rows {first} to {self.count - 1}: {error}; {_odd(rows, first)}") from error


def _is_picture(kind: pa.DataType) -> bool:
    """Whether cells are pictures as the datasets library keeps them, or lists of these."""
    inner = kind.value_type if hasattr(kind, "value_type") else kind
    return pa.types.is_struct(inner) and {field.name for field in inner} == {"bytes", "path"}


def _listed(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [] if cell is None else [cell]


def _odd(rows: list[dict[str, Any]], first: int) -> str:
    """Two rows whose cells of one column are of different kinds."""
    kinds: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows, first):
        for column, cell in row.items():
            kind = type(cell).__name__
            before, known = kinds.setdefault(column, (number, kind)) if cell is not None else (number, kind)
            if kind != known:
                return f"{column!r} is a {known} in row {before} and a {kind} in row {number}; give values of one kind"
    return "give values that a table can hold"


def _alike(tables: list[pa.Table]) -> Iterator[pa.Table]:
    """The tables, with lists of pictures in all where one has them."""
    several = {
        column
        for table in tables
        for column in PICTURED
        if column in table.column_names and pa.types.is_list(table[column].type)
    }
    for table in tables:
        changed = table
        for column in several & set(table.column_names):
            if not pa.types.is_list(table[column].type):
                lists = pa.array(map(_listed, table[column].to_pylist()), pa.list_(pa.string()))
                changed = changed.set_column(table.column_names.index(column), column, lists)
        yield changed
