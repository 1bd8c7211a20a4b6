"""Tables by blocks of rows, so that no more than a block of them is held as Python objects."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

BLOCK = 8192
"""Rows of a block."""

_T = TypeVar("_T")


def blocks(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Items by the block, in order."""
    iterator = iter(items)
    while block := list(islice(iterator, BLOCK)):
        yield block


def cells_of(column: pa.ChunkedArray) -> Iterator[Any]:
    """The cells of a column as Python has them, as ``to_pylist`` gives them all at once."""
    for begin in range(0, len(column), BLOCK):
        yield from column.slice(begin, BLOCK).to_pylist()


def rows_of(table: pa.Table, *columns: str) -> Iterator[dict[str, Any]]:
    """The rows of a table, of those of these columns that it has, or of all."""
    chosen = table.select([column for column in columns if column in table.column_names]) if columns else table
    for begin in range(0, table.num_rows, BLOCK):
        yield from chosen.slice(begin, BLOCK).to_pylist()


def column_of(cells: Iterable[Any], kind: pa.DataType) -> pa.ChunkedArray:
    """Cells as a column of a kind."""
    return pa.chunked_array([pa.array(block, kind) for block in blocks(cells)], kind)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table that has the columns of all.

    Raises:
        ValueError: values of one column are of different kinds.
    """
    made = [(_block(block), len(block)) for block in blocks(rows)]
    if len(made) == 1:
        return made[0][0]
    names = dict.fromkeys(name for of, _ in made for name in of.column_names)
    return pa.table({name: _joined(name, made) for name in names})


def _block(rows: list[Mapping[str, Any]]) -> pa.Table:
    # Arrow's from_pylist would take the columns of the first row and drop all others.
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _array(name, [row.get(name) for row in rows]) for name in names})


def _joined(name: str, made: list[tuple[pa.Table, int]]) -> pa.ChunkedArray:
    """One column of several tables, each with its number of rows; null where a table has none."""
    parts = [of[name] if name in of.column_names else pa.chunked_array([pa.nulls(rows)]) for of, rows in made]
    kinds = {part.type for part in parts} - {pa.null()}
    if len(kinds) > 1:
        # Only the whole column says what kind holds whole numbers and others, or objects of other keys.
        return pa.chunked_array([_array(name, [cell for part in parts for cell in cells_of(part)])])
    kind = kinds.pop() if kinds else pa.null()
    return pa.chunked_array([chunk for part in parts for chunk in part.cast(kind).chunks], kind)


def _array(name: object, cells: list[Any]) -> pa.Array:
    if not isinstance(name, str):
        raise ValueError(f"the name of the column {name!r} is no text")
    try:
        return pa.array(cells)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"column {name!r}: {error}") from error
