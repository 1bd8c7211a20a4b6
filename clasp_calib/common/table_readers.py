"""Tables as they lie on disk, read so that nothing in them is lost or changed without a word: JSONL, CSV, Parquet."""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clasp_calib.common.answer_cells import Literal, answers_of, id_of, unfloated
from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular, text_lines
from clasp_calib.common.row_blocks import blocks, cells_of, column_of, table_of
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
    return parse_table(path, path.suffix.lower(), str(path), columns)


def parse_table(content: bytes | Path, suffix: str, name: str, columns: Mapping[str, str] | None = None) -> pa.Table:
    """A table out of a file where it lies, or out of its bytes; see `read_file`.

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
        if suffix == ".jsonl":
            with text_lines(content, MOST_TEXT, "sample file") as lines:
                return _jsonl(lines, ours)
        if suffix == ".csv":
            return _csv(content, ours)
    except MemoryError as error:
        raise InputError(f"{name} does not fit into memory; divide it, or take a part of it") from error
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{name} cannot be read as {suffix[1:]}: {error}; mend it, or write it again") from error
    raise InputError(f"{name} ends in {suffix!r}; expected one of {', '.join(FORMATS)}")


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


def _jsonl(lines: Iterable[str], ours: Mapping[str, str]) -> pa.Table:
    answers = {column for column, kind in ours.items() if kind == _ANSWERS}
    numbers = set(answers)
    """Columns of answers in which nothing but numbers was seen."""

    def rows() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _object(number, line.removesuffix("\n"))
                numbers.difference_update(
                    [one for one in numbers if not isinstance(row.get(one), Literal | None)] if numbers else ()
                )
                yield _on_line(number, texts_of, row, ours, _plain)

    table = table_of(rows())
    for column in numbers & set(table.column_names):
        cells = [cell[0] if cell else None for cell in cells_of(table[column])]
        whole = unfloated(cells, only_with_gaps=True)
        if whole != cells:
            made = column_of(([cell] if cell else [] for cell in whole), pa.list_(pa.string()))
            table = table.set_column(table.column_names.index(column), column, made)
    return table


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


def _csv(content: bytes | Path, ours: Mapping[str, str]) -> pa.Table:
    """All cells as texts; where there is nothing, as null."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with text_lines(content, MOST_TEXT, "sample file", newline="") as lines:
            reader = csv.reader(lines)
            first = next(reader, [])
        if len(first) == 1 and (divider := next((mark for mark in ";\t" if mark in first[0]), None)):
            raise ValueError(f"line 1: the columns are divided by {divider!r}; save the file with commas")
        # Some writers put a space behind every comma, and quotes behind it.
        spaced = len(first) > 1 and all(name.startswith(" ") for name in first[1:])
        with text_lines(content, MOST_TEXT, "sample file", newline="") as lines:
            # Strict, so that a quote that is not closed does not swallow all lines after it.
            reader = csv.reader(lines, strict=True, skipinitialspace=spaced)
            return _of_texts(_equally_long(reader), ours)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _equally_long(reader: Any) -> Iterator[list[str]]:
    """The rows of a CSV reader, the header first, without blank lines."""
    width = None
    for row in reader:
        if row and width is not None and len(row) != width:
            more = "more" if len(row) > width else "fewer"
            raise ValueError(
                f"line {reader.line_num}: a row has {more} fields than the header; put texts with commas in quotes"
            )
        if row:
            width = len(row)
            yield row


def _of_texts(rows: Iterator[list[str]], ours: Mapping[str, str]) -> pa.Table:
    header = [name.strip() for name in next(rows, [])]
    check_once(header, "line 1: the column")
    made: list[list[pa.Array]] = [[] for _ in header]
    for block in blocks(rows):
        for column, cells in zip(made, zip(*block, strict=True), strict=True):
            column.append(pa.array([cell or None for cell in cells], pa.string()))
    columns = {name: pa.chunked_array(parts, pa.string()) for name, parts in zip(header, made, strict=True)}
    for name, kind in ours.items():
        if name in columns and kind == _ANSWERS:
            columns[name] = column_of(_divided(name, columns[name]), pa.list_(pa.string()))
        elif name in columns:
            columns[name] = column_of(unfloated(columns[name].to_pylist()), pa.string())
    return pa.table(columns)


def _divided(name: str, column: pa.ChunkedArray) -> Iterator[list[str]]:
    for row, cell in enumerate(unfloated(column.to_pylist(), only_with_gaps=True)):
        try:
            yield answers_of(cell, "|")
        except ValueError as error:
            raise ValueError(f"row {row}: column {name!r}: {error}") from error


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
