"""Rows as a reader gives them, one after another, as one table."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.answer_cells import is_nothing
from clasp_calib.common.errors import InputError
from clasp_calib.common.picture_cells import PictureCells
from clasp_calib.common.table_readers import table_of, texts_of

PICTURED = ("image", "images")
_OURS = {"answers": "answers", "id": "id"}
_BATCH = 1024
_Row = Mapping[str, Any]


def table_of_rows(
    rows: Iterable[_Row | pa.Table], cells: PictureCells, home: Path, name: str, limit: int | None = None
) -> pa.Table:
    """The rows of a reader as a table, with texts where they had pictures.

    No more than a batch of rows is held as Python objects.

    Args:
        rows: mappings of columns, or tables of some rows.
        cells: where pictures go.
        home: what paths of pictures are relative to.
        name: what the source is called in messages.
        limit: use the first rows only.

    Raises:
        InputError: rows differ in the kinds of a column; a picture is none; an answer or id is none.
    """
    tables, count = [], 0
    for batch in _batches(rows):
        given = batch[: None if limit is None else limit - count]
        if isinstance(given, pa.Table):
            table = cells.settled(given, PICTURED, home, name, count)
        else:
            table = _table(given, cells, home, name, count)
        tables.append(table)
        count += len(given)
        if limit is not None and count >= limit:
            break
    try:
        return pa.concat_tables(_alike(tables), promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise InputError(f"{name}: rows differ in a column: {error}; give values of one kind") from error


def _batches(rows: Iterable[_Row | pa.Table]) -> Iterator[list[_Row] | pa.Table]:
    batch: list[_Row] = []
    for row in rows:
        if isinstance(row, pa.Table):
            if batch:
                yield batch
            batch = []
            yield from (row[start : start + _BATCH] for start in range(0, len(row), _BATCH))
            continue
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _table(rows: list[_Row], cells: PictureCells, home: Path, name: str, first: int) -> pa.Table:
    read = []
    for number, row in enumerate(rows, first):
        try:
            read.append(texts_of(row, _OURS, lambda cell: None if is_nothing(cell) else cell))
        except ValueError as error:
            raise InputError(f"{name}: row {number}: {error}") from error
    pictures = {
        column: cells.texts([row.pop(column, None) for row in read], home, name, first)
        for column in PICTURED
        if any(column in row for row in read)
    }
    try:
        table = table_of(read)
    except ValueError as error:
        raise InputError(f"{name}: rows {first} to {first + len(rows) - 1}: {error}; {_odd(read, first)}") from error
    for column, texts in pictures.items():
        table = table.append_column(column, texts)
    return table


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
        if column in table.column_names and pa.types.is_list(table.schema.field(column).type)
    }
    for table in tables:
        changed = table
        for column in several & set(table.column_names):
            if not pa.types.is_list(table.schema.field(column).type):
                lists = [[] if cell is None else [cell] for cell in table[column].to_pylist()]
                place = table.column_names.index(column)
                changed = changed.set_column(place, column, pa.array(lists, pa.list_(pa.string())))
        yield changed
