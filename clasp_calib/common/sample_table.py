"""The sample table, in files and in memory: what all commands hand on.

Columns: ``id`` (string), ``image`` (path relative to the file, a list of them, or null; a list may also be in a column
``images``, which `with_one_image_column` takes into this one), ``video`` (a path),
``question``, ``answers`` (list of strings), ``metric`` (name, optional), ``split`` (calibration | selection | test,
optional), and after labelling ``intent`` and ``class`` (slugs). Other columns pass through untouched.
"""

import json
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clasp_calib.common.answer_cells import answers_of, id_of, is_nothing, read_column
from clasp_calib.common.errors import InputError
from clasp_calib.common.media import Media
from clasp_calib.common.question_parts import parts_of
from clasp_calib.common.replacing import replaced
from clasp_calib.common.row_blocks import cells_of, column_of, rows_of
from clasp_calib.common.samples import SPLITS, Sample
from clasp_calib.common.table_readers import check_once

_READ = ("id", "question", "image", "images", "video", "answers", "metric", "split", "intent", "class")
"""Columns that a sample is made of."""
BARE = "bare_question"
"""Column of what a question asks without options and answer format, as readers of benchmarks tell it."""
_LONGEST_PATH = 4096
_GROUP = 1 << 17
"""Rows that are written at once."""


def sample_table(table: pa.Table, name: object, columns: Mapping[str, str] | None = None) -> pa.Table:
    """A table that was read as a sample table: columns mapped, ids made or checked, answers as texts, questions there.

    Args:
        table: as it was read.
        name: what it is called in messages, its path for instance.
        columns: our name -> the table's name, for columns called otherwise.

    Raises:
        InputError: there are no rows; a question, an id or a mapped column is missing; a column is there twice; or an
            answer or id is none, see `clasp_calib.common.answer_cells`.
    """
    try:
        check_once(table.column_names, "the column")
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    table = _renamed(name, table, columns or {})
    if table.num_rows == 0:
        raise InputError(f"{name} holds no rows; expected at least one question")
    if "question" not in table.column_names:
        raise InputError(
            f"{name} has no column 'question' (it has {', '.join(table.column_names) or 'none'}); "
            "rename it, or map it with --column question=NAME (in Python: columns={'question': 'NAME'})"
        )
    table = _with_answers(name, _with_ids(name, table))
    blank = [row for row, q in enumerate(cells_of(table["question"])) if not isinstance(q, str) or not q.strip()]
    if blank:
        first = table["id"][blank[0]].as_py()
        raise InputError(f"{name}: {len(blank)} rows have no question (first id {first!r}); remove or fill them")
    return table


def with_one_image_column(table: pa.Table, name: object) -> pa.Table:
    """The table with the pictures of a column ``images`` in the column ``image``.

    Args:
        table: its pictures are texts.
        name: what it is called in messages.

    Raises:
        InputError: a row has pictures in both, or something else than a list in ``images``.
    """
    if "images" not in table.column_names:
        return table
    image = column_of(map(_pictures(name), rows_of(table, "id", "image", "images")), pa.list_(pa.string()))
    table = table.drop_columns([column for column in ("image", "images") if column in table.column_names])
    return table.append_column("image", image)


def _pictures(name: object) -> Callable[[Mapping[str, Any]], list[Any]]:
    def found(row: Mapping[str, Any]) -> list[Any]:
        number, single, several = row["id"], row.get("image"), row["images"]
        if not isinstance(several, list | None):
            raise InputError(
                f"{name}: the row {number!r} has the images {reprlib.repr(several)}; expected a list of paths"
            )
        if single and several:
            raise InputError(f"{name}: the row {number!r} has both an image and images; give all of them in images")
        return several or (single if isinstance(single, list) else [single] if single else [])

    return found


def moved(old: Path, new: Path) -> Callable[[str], str]:
    """What makes paths that are relative to ``old`` relative to ``new``."""
    old, new = old.resolve(), new.resolve()
    # An address is no path, and would lose a slash.
    return lambda path: path if "://" in path else os.path.relpath(old / path, new)


def with_media(table: pa.Table, change: Callable[[str], str]) -> pa.Table:
    """The table with ``change`` applied to each path in it; null where a path is empty."""
    for name in ("image", "video"):
        if name in table.column_names:
            several = pa.types.is_nested(table.schema.field(name).type)
            kind = pa.list_(pa.string()) if several else pa.string()
            made = column_of((_changed(cell, change) for cell in cells_of(table[name])), kind)
            table = table.set_column(table.column_names.index(name), name, made)
    return table


def _changed(cell: Any, change: Callable[[str], str]) -> Any:
    return [_changed(one, change) for one in cell] if isinstance(cell, list) else change(cell) if cell else None


def write_table(table: pa.Table, path: Path, change: Callable[[pa.Table], pa.Table] = lambda part: part) -> None:
    """Write a table as Parquet, or as JSONL where the path ends so, whole or not at all.

    Args:
        table: any.
        path: of the file.
        change: what is made of every part of it before it is written.

    Raises:
        InputError: the path ends in something else, the place cannot be written to, or the format has no such values.
    """
    check_writable(path)
    parts = (change(table.slice(begin, _GROUP)) for begin in range(0, max(table.num_rows, 1), _GROUP))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial:
            if path.suffix == ".jsonl":
                with partial.open("w") as file:
                    file.writelines(f"{line}\n" for part in parts for line in json_lines(part, _no_bytes))
            else:
                first = next(parts)
                with pq.ParquetWriter(partial, first.schema) as writer:
                    for part in chain([first], parts):
                        writer.write_table(part)
    except pa.ArrowException as error:
        raise InputError(
            f"cannot write {path}: {error}; remove that column, or give a place that ends in .jsonl"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); give another place") from error


def json_lines(table: pa.Table, told: Callable[[Any], str], sort_keys: bool = False) -> Iterator[str]:
    """The rows of a table as JSON, one after another.

    Args:
        table: any.
        told: what stands for a value that JSON lacks; raises TypeError where nothing may.
        sort_keys: so that the order of columns does not count.

    Raises:
        InputError: nothing may stand for a value, or it is a time that Python has not.
    """
    try:
        yield from (json.dumps(row, default=told, sort_keys=sort_keys) for row in rows_of(table))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"a column holds what JSON and Python cannot ({error}); remove it") from error


def check_writable(path: Path, schema: pa.Schema | None = None) -> None:
    """Refuse what `write_table` would refuse, before hours of work.

    Args:
        path: of the file.
        schema: of the table, if it is known.

    Raises:
        InputError: the path ends in something else than ``.parquet`` or ``.jsonl``, or Parquet has no such columns.
    """
    if path.suffix not in (".parquet", ".jsonl"):
        raise InputError(f"cannot write {path}: it ends in {path.suffix!r}; end it in .parquet or .jsonl")
    if schema is not None and path.suffix == ".parquet":
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), schema).close()
        except pa.ArrowException as error:
            raise InputError(f"cannot write {path}: {error}; remove that column") from error


def samples_of(table: pa.Table, directory: Path, held: Mapping[str, Media]) -> Iterator[Sample]:
    """The rows of a table as samples, one after another.

    Args:
        table: as `sample_table` gives it.
        directory: what paths are relative to.
        held: pictures in memory, by what stands for them in the table.

    Raises:
        InputError: a split that is not known, a picture that is none, or places for another number of pictures.
    """
    for row in rows_of(table, *_READ):
        sample = _sample(row, directory, held)
        if sample.split is not None and sample.split not in SPLITS:
            raise InputError(f"sample {sample.id!r} has split {sample.split!r}; expected one of {', '.join(SPLITS)}")
        try:
            parts_of(sample.question, len(sample.media) or None)
        except InputError as error:
            raise InputError(f"sample {sample.id!r}: {error}") from error
        yield sample


def classes_of(table: pa.Table) -> Iterator[Any]:
    """The class of each sample, as `samples_of` gives it."""
    yield from (
        (_class(cell) for cell in cells_of(table["class"]))
        if "class" in table.column_names
        else repeat(None, table.num_rows)
    )


def _no_bytes(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes")
    return str(value)


def _renamed(name: object, table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    theirs = {given: ours for ours, given in columns.items()}
    for ours, given in columns.items():
        if ours not in (*_READ, "gold_class"):
            raise InputError(
                f"the column {given!r} is mapped to {ours!r}, which has no meaning; map it to one of {', '.join(_READ)}"
            )
        if given not in table.column_names:
            raise InputError(
                f"{name} has no column {given!r} (it has {', '.join(table.column_names)}); give one of these"
            )
        if theirs[given] != ours:
            raise InputError(f"the column {given!r} is mapped to {ours!r} and to {theirs[given]!r}; map it to one")
    # All at once, so that two columns can change places.
    table = table.drop_columns([c for c in table.column_names if c in columns and c not in theirs])
    return table.rename_columns([theirs.get(c, c) for c in table.column_names])


def _with_ids(name: object, table: pa.Table) -> pa.Table:
    if "id" not in table.column_names:
        return table.add_column(0, "id", column_of(map(str, range(table.num_rows)), pa.string()))
    ids = _read_column(name, table, "id", id_of, pa.string())
    if ids.null_count:
        raise InputError(f"{name}: {ids.null_count} rows have no id; give each its own, or remove the column")
    if pc.count_distinct(ids).as_py() < table.num_rows:
        twice = Counter(ids.to_pylist()).most_common(1)[0][0]
        raise InputError(f"{name} holds the id {twice!r} more than once; ids must be unique")
    return table.set_column(table.column_names.index("id"), "id", ids)


def _with_answers(name: object, table: pa.Table) -> pa.Table:
    if "answers" not in table.column_names:
        return table
    answers = _read_column(name, table, "answers", answers_of, pa.list_(pa.string()))
    return table.set_column(table.column_names.index("answers"), "answers", answers)


def _read_column(
    name: object, table: pa.Table, column: str, read: Callable[[Any], Any], kind: pa.DataType
) -> pa.ChunkedArray:
    try:
        return column_of(read_column(table[column], read), kind)
    except (ValueError, ArithmeticError) as error:
        raise InputError(f"{name}: column {column!r}: {error}") from error


def _sample(row: Mapping[str, Any], directory: Path, held: Mapping[str, Media]) -> Sample:
    def media(column: str, cell: Any) -> Any:
        if isinstance(cell, list):
            return [media(column, one) for one in cell if one]
        if isinstance(cell, str) and ("\0" in cell or len(cell) > _LONGEST_PATH):
            why = "a path with a null character" if "\0" in cell else f"{len(cell)} characters, which are no path"
            raise InputError(
                f"sample {row['id']!r} has the {column} {reprlib.repr(cell)}, {why}; give the path of a file, or "
                "pictures as bytes in Parquet"
            )
        return held.get(cell, directory / cell) if cell and isinstance(cell, str) else cell or None

    # What pandas leaves for nothing.
    row = {column: None if is_nothing(cell) else cell for column, cell in row.items()}
    row["class"] = _class(row.get("class"))
    for column in ("metric", "split", "intent", "class"):
        if not isinstance(row.get(column), str | None):
            raise InputError(f"sample {row['id']!r} has the {column} {row[column]!r}; expected a text")
    return Sample(
        id=row["id"],
        question=row["question"],
        image=media("image", row.get("image")),
        answers=tuple(row.get("answers") or ()),
        metric=row.get("metric"),
        split=row.get("split"),
        intent=row.get("intent"),
        label=row.get("class"),
        video=media("video", row.get("video")),
    )


def _class(cell: Any) -> Any:
    if is_nothing(cell):
        return None
    return id_of(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else cell
