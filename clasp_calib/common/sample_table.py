"""The sample table, in files and in memory: what all commands hand on.

Columns: ``id`` (string), ``image`` (path relative to the file, a list of them, or null), ``video`` (the same, one),
``question``, ``answers`` (list of strings), ``metric`` (name, optional), ``split`` (calibration | selection | test,
optional), and after labelling ``intent`` and ``class`` (slugs). Other columns pass through untouched.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clasp_calib.common.errors import InputError
from clasp_calib.common.media import Media
from clasp_calib.common.replacing import replaced
from clasp_calib.common.samples import SPLITS, Sample

FORMATS = (".parquet", ".jsonl", ".csv")


def read_file(path: Path) -> pa.Table:
    """Read Parquet, JSONL or CSV as it is.

    Raises:
        InputError: the file is missing, empty, of an unknown kind or damaged.
    """
    if not path.is_file():
        hub = "" if path.suffix in FORMATS else f", or a dataset on the Hub with its revision, such as {path}@main"
        # What `label` leaves in a run directory is missed most often by who has not labelled yet.
        made = f"; make it with `clasp-calib label FILE --run {path.parent}`" if path.name == "labels.parquet" else ""
        raise InputError(
            f"no sample file at {path}; expected a {', '.join(FORMATS)} file with a column 'question'{hub}{made}"
        )
    try:
        return _READERS[path.suffix](path)
    except KeyError:
        raise InputError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(FORMATS)}") from None
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {error}; mend it, or write it again") from error


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table that has the columns of all.

    Raises:
        ValueError: values of one column are of different kinds.
    """
    # Arrow's from_pylist would take the columns of the first row and drop all others.
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"column {name!r}: {error}") from error
    return pa.table(columns)


def sample_table(table: pa.Table, name: object, columns: Mapping[str, str] | None = None) -> pa.Table:
    """A table that was read as a sample table: columns mapped, ids made or checked, questions there.

    Args:
        table: as it was read.
        name: what it is called in messages, its path for instance.
        columns: our name -> the table's name, for columns called otherwise.

    Raises:
        InputError: there are no rows, or a question, an id or a mapped column is missing.
    """
    for ours, given in (columns or {}).items():
        if given not in table.column_names:
            raise InputError(
                f"{name} has no column {given!r} (it has {', '.join(table.column_names)}); give one of these"
            )
        if given != ours and ours in table.column_names:
            table = table.drop_columns([ours])
        table = table.rename_columns([ours if c == given else c for c in table.column_names])
    if table.num_rows == 0:
        raise InputError(f"{name} holds no rows; expected at least one question")
    if "question" not in table.column_names:
        raise InputError(
            f"{name} has no column 'question' (it has {', '.join(table.column_names) or 'none'}); "
            "rename it, or map it with --column question=NAME (in Python: columns={'question': 'NAME'})"
        )
    table = _with_ids(name, table)
    rows = zip(table["id"].to_pylist(), table["question"].to_pylist(), strict=True)
    blank = [i for i, q in rows if not isinstance(q, str) or not q.strip()]
    if blank:
        raise InputError(f"{name}: {len(blank)} rows have no question (first id {blank[0]!r}); remove or fill them")
    return table


def rebased(table: pa.Table, old: Path, new: Path) -> pa.Table:
    """The table with its paths, relative to ``old`` so far, relative to ``new``."""

    def moved(cell: Any) -> Any:
        if isinstance(cell, list):
            return [moved(one) for one in cell]
        return os.path.relpath(old.resolve() / cell, new.resolve()) if cell else None

    return with_media(table, moved)


def with_media(table: pa.Table, change: Callable[[Any], Any]) -> pa.Table:
    """The table with ``change`` applied to each cell of the columns that hold paths."""
    for name in ("image", "video"):
        if name in table.column_names:
            cells = [change(cell) for cell in table[name].to_pylist()]
            kind = pa.list_(pa.string()) if any(isinstance(cell, list) for cell in cells) else pa.string()
            table = table.set_column(table.column_names.index(name), name, pa.array(cells, kind))
    return table


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet, or as JSONL where the path ends so, whole or not at all.

    Raises:
        InputError: the path ends in something else, or the place cannot be written to.
    """
    check_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial:
            if path.suffix == ".jsonl":
                partial.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in table.to_pylist()))
            else:
                pq.write_table(table, partial)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); give another place") from error


def check_writable(path: Path) -> None:
    """Refuse a path that `write_table` would refuse, before hours of work.

    Raises:
        InputError: it ends in something else than ``.parquet`` or ``.jsonl``.
    """
    if path.suffix not in (".parquet", ".jsonl"):
        raise InputError(f"cannot write {path}: it ends in {path.suffix!r}; end it in .parquet or .jsonl")


def samples_of(table: pa.Table, directory: Path, held: Mapping[str, Media]) -> list[Sample]:
    """The rows of a table as samples.

    Args:
        table: as `sample_table` gives it.
        directory: what paths are relative to.
        held: pictures in memory, by what stands for them in the table.

    Raises:
        InputError: a split that is not known, or a picture that is none.
    """
    samples = [_sample(row, directory, held) for row in table.to_pylist()]
    for sample in samples:
        if sample.split is not None and sample.split not in SPLITS:
            raise InputError(f"sample {sample.id!r} has split {sample.split!r}; expected one of {', '.join(SPLITS)}")
    return samples


def _with_ids(name: object, table: pa.Table) -> pa.Table:
    if "id" not in table.column_names:
        return table.add_column(0, "id", pa.array([str(i) for i in range(table.num_rows)]))
    try:
        table = table.set_column(table.column_names.index("id"), "id", table["id"].cast(pa.string()))
    except pa.ArrowException as error:
        raise InputError(f"{name}: the ids are of type {table['id'].type}; expected texts or numbers") from error
    times = Counter(table["id"].to_pylist())
    if None in times:
        raise InputError(f"{name}: {times[None]} rows have no id; give each its own, or remove the column")
    if len(times) < table.num_rows:
        raise InputError(f"{name} holds the id {times.most_common(1)[0][0]!r} more than once; ids must be unique")
    return table


def _sample(row: Mapping[str, Any], directory: Path, held: Mapping[str, Media]) -> Sample:
    def media(cell: Any) -> Any:
        if isinstance(cell, list):
            return [media(one) for one in cell if one]
        return held.get(cell, directory / cell) if cell and isinstance(cell, str) else cell or None

    answers = row.get("answers")
    if answers is not None and not isinstance(answers, list):
        answers = [answers]
    return Sample(
        id=row["id"],
        question=row["question"],
        image=media(row.get("image")),
        answers=tuple(str(a) for a in answers or () if a is not None),
        metric=row.get("metric"),
        split=row.get("split"),
        intent=row.get("intent"),
        label=row.get("class"),
        video=media(row.get("video")),
    )


def _read_jsonl(path: Path) -> pa.Table:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number}: a {type(row).__name__}, expected an object")
            rows.append(row)
    return table_of(rows)


def _read_csv(path: Path) -> pa.Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows: list[dict[str, Any]] = [dict(row) for row in csv.DictReader(file)]
    if any(None in row for row in rows):
        raise ValueError("a row has more fields than the header; put texts with commas in quotes")
    for row in rows:
        if row.get("answers"):
            row["answers"] = row["answers"].split("|")
        elif "answers" in row:
            row["answers"] = []
    return pa.Table.from_pylist([{k: (v if v != "" else None) for k, v in row.items()} for row in rows])


_READERS = {".parquet": pq.read_table, ".jsonl": _read_jsonl, ".csv": _read_csv}
