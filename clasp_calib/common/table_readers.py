"""Tables as they lie on disk, read so that nothing in them is lost or changed without a word: JSONL, CSV, Parquet."""

import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clasp_calib.common.answer_cells import Literal, answers_of, id_of, unfloated
from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular, decoded, read_given
from clasp_calib.common.strict_json import named_once

FORMATS = (".parquet", ".jsonl", ".csv")
MOST_TEXT = 4 << 30
"""Bytes of a JSONL or CSV file."""
MOST_ROWS = 10_000_000
_BATCH = 1024
_ANSWERS, _IDS = "answers", "id"

_T = TypeVar("_T")


def read_file(path: Path, columns: Mapping[str, str] | None = None) -> pa.Table:
    """Read Parquet, JSONL or CSV as it is, but for answers and ids in JSONL and CSV, which become texts.

    Args:
        path: of the file.
        columns: our name -> the file's name, for columns called otherwise.

    Raises:
        InputError: the file is missing, is no regular file, is of an unknown kind, damaged or larger than memory.
    """
    try:
        check_regular(path, "sample file")
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        hub = "" if path.suffix in FORMATS else f", or a dataset on the Hub with its revision, such as {path}@main"
        # What `label` leaves in a run directory is missed most often by who has not labelled yet.
        label = f"; make it with `clasp-calib label FILE --run {path.parent}`, or give a table with --samples"
        made = label if path.name == "labels.parquet" else ""
        raise InputError(
            f"no sample file at {path}; expected a {', '.join(FORMATS)} file with a column 'question'{hub}{made}"
        ) from None
    suffix = path.suffix.lower()
    content = read_given(path, MOST_TEXT, "sample file") if suffix in (".jsonl", ".csv") else path
    return parse_table(content, suffix, str(path), columns)


def parse_table(content: bytes | Path, suffix: str, name: str, columns: Mapping[str, str] | None = None) -> pa.Table:
    """A table out of the bytes of a file, or of a Parquet file where it lies; see `read_file`.

    Args:
        content: the bytes, or the path of a regular file.
        suffix: one of `FORMATS`.
        name: what the file is called in messages.
        columns: our name -> the file's name, for columns called otherwise.

    Raises:
        InputError: see `read_file`.
    """
    ours = {(columns or {}).get(name, name): name for name in (_ANSWERS, _IDS)}
    try:
        if suffix == ".parquet":
            return _parquet(content)
        if suffix in FORMATS and isinstance(content, bytes):
            return (_jsonl if suffix == ".jsonl" else _csv)(decoded(content), ours)
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory; divide it, or take a part of it") from error
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{name} cannot be read as {suffix[1:]}: {error}; mend it, or write it again") from error
    raise InputError(f"{name} ends in {suffix!r}; expected one of {', '.join(FORMATS)}")


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table that has the columns of all.

    Raises:
        ValueError: values of one column are of different kinds.
    """
    # Arrow's from_pylist would take the columns of the first row and drop all others.
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        if not isinstance(name, str):
            raise ValueError(f"the name of the column {name!r} is no text")
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"column {name!r}: {error}") from error
    return pa.table(columns)


def texts_of(row: Mapping[str, Any], ours: Mapping[str, str], plain: Callable[[Any], Any]) -> dict[str, Any]:
    """A row with texts as answers and id, and ``plain`` applied to all other cells.

    Args:
        row: of a table.
        ours: the name of a column -> ``answers`` or ``id``.
        plain: what is made of the cells of other columns.

    Raises:
        ValueError: with the column.
    """
    read: dict[str, Callable[[Any], Any]] = {_ANSWERS: answers_of, _IDS: id_of}
    found = {}
    for column, cell in row.items():
        try:
            found[column] = read[ours[column]](cell) if column in ours else plain(cell)
        except (ValueError, ArithmeticError) as error:
            raise ValueError(f"column {column!r}: {error}") from error
    return found


def check_once(names: Collection[str], where: str) -> None:
    """Refuse names of which one stands twice.

    Raises:
        ValueError: with the name.
    """
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{where} {name!r} stands {times} times; give it once")


def _jsonl(text: str, ours: Mapping[str, str]) -> pa.Table:
    lines = enumerate(text.split("\n"), start=1)
    rows = {number: _object(number, line) for number, line in lines if line.strip()}
    for column in (column for column, kind in ours.items() if kind == _ANSWERS):
        cells = [None if (cell := row.get(column)) == "NaN" else cell for row in rows.values()]
        if all(cell is None or isinstance(cell, Literal) for cell in cells):
            whole = unfloated(cells, only_with_gaps=True)
            for row, cell in zip(rows.values(), whole, strict=True):
                row.update({column: Literal(cell)} if cell else {})
    return table_of([_on_line(number, texts_of, row, ours, _plain) for number, row in rows.items()])


def _object(number: int, line: str) -> dict[str, Any]:
    hooks: dict[str, Any] = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), Literal)
    row = _on_line(number, json.loads, line, object_pairs_hook=named_once, **hooks)
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: a {type(row).__name__}, expected an object: one a line")
    if "\\u" in line:
        _on_line(number, lambda: json.dumps(row, ensure_ascii=False).encode())
    return row


def _on_line(number: int, call: Callable[..., _T], *given: Any, **named: Any) -> _T:
    try:
        return call(*given, **named)
    except RecursionError as error:
        raise ValueError(f"line {number} is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"line {number} holds half a character (\\u{ord(error.object[error.start]):04x})") from error
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def _plain(cell: Any) -> Any:
    """Numbers as numbers; NaN, which is what pandas has for nothing, as nothing."""
    if isinstance(cell, Literal):
        return None if cell == "NaN" else int(cell) if cell.lstrip("-").isdigit() else float(cell)
    if isinstance(cell, list):
        return [_plain(one) for one in cell]
    return {key: _plain(one) for key, one in cell.items()} if isinstance(cell, dict) else cell


def _csv(text: str, ours: Mapping[str, str]) -> pa.Table:
    limit = csv.field_size_limit(sys.maxsize)
    rows: list[list[str]] = []
    try:
        # Some writers put a space behind every comma, and quotes behind it.
        reader = csv.reader(io.StringIO(text, newline=""))
        first = next(reader, [])
        if len(first) == 1 and (divider := next((mark for mark in ";\t" if mark in first[0]), None)):
            raise ValueError(f"line 1: the columns are divided by {divider!r}; save the file with commas")
        spaced = len(first) > 1 and all(name.startswith(" ") for name in first[1:])
        # Strict, so that a quote that is not closed does not swallow all lines after it.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=spaced)
        for row in reader:
            if row and rows and len(row) != len(rows[0]):
                more = "more" if len(row) > len(rows[0]) else "fewer"
                raise ValueError(
                    f"line {reader.line_num}: a row has {more} fields than the header; put texts with commas in quotes"
                )
            rows += [row] if row else []
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        return pa.table({})
    header = [name.strip() for name in rows.pop(0)]
    check_once(header, "line 1: the column")
    columns: dict[str, pa.Array] = {}
    for name, cells in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True):
        if ours.get(name) == _ANSWERS:
            columns[name] = pa.array(_divided(name, cells), pa.list_(pa.string()))
        else:
            texts = [cell or None for cell in cells]
            columns[name] = pa.array(unfloated(texts) if ours.get(name) == _IDS else texts, pa.string())
    return pa.table(columns)


def _divided(name: str, cells: Sequence[str]) -> list[list[str]]:
    found = []
    for row, cell in enumerate(unfloated(cells, only_with_gaps=True)):
        try:
            found.append(answers_of(cell, "|"))
        except ValueError as error:
            raise ValueError(f"row {row}: column {name!r}: {error}") from error
    return found


def _parquet(content: bytes | Path) -> pa.Table:
    """Row by row, since few bytes of Parquet may stand for very many."""
    with pq.ParquetFile(pa.BufferReader(content) if isinstance(content, bytes) else content) as file:
        check_once(file.schema_arrow.names, "the column")
        told = file.metadata
        size = sum(told.row_group(number).total_byte_size for number in range(told.num_row_groups))
        if told.num_rows > MOST_ROWS:
            raise ValueError(f"it has {told.num_rows} rows, more than the {MOST_ROWS} that one may have")
        batches = []
        most = _most_memory()
        if size <= most:
            size = 0
            for batch in file.iter_batches(_BATCH):
                size += batch.nbytes
                if size > most:
                    break
                batches.append(batch)
        if size > most:
            raise MemoryError(size)
        table = pa.Table.from_batches(batches, file.schema_arrow)
        table.validate(full=True)  # what a page holds as text need not be UTF-8
        return table


def _most_memory() -> int:
    """A quarter of the machine's memory, in bytes: what is read is held twice, as Arrow and as Python has it."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
