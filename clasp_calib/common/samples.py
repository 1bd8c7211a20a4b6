"""The sample table: the one input of label, cache-features, search and evaluate.

Columns: ``id`` (string), ``image`` (path relative to the file, or null), ``question``, ``answers`` (list of
strings), ``metric`` (name, optional), ``split`` (calibration | selection | test, optional), and after labelling
``intent`` and ``class`` (slugs). Other columns pass through untouched.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clasp_calib.common.errors import InputError

CLASSES = ("object", "attribute", "text", "scene", "spatial", "counting", "action", "function", "default")
SPLITS = ("train", "calibration", "selection", "test", "challenge")
FORMATS = (".parquet", ".jsonl", ".csv")


@dataclass(frozen=True)
class Sample:
    """One question about one picture (or none)."""

    id: str
    question: str
    image: Path | None = None
    answers: tuple[str, ...] = ()
    metric: str | None = None
    split: str | None = None
    intent: str | None = None
    label: str | None = None
    """Slug of the class; the table's column is called ``class``."""


def read_table(path: Path, columns: Mapping[str, str] | None = None, limit: int | None = None) -> pa.Table:
    """Read a sample table from Parquet, JSONL or CSV.

    Args:
        path: the file; ``image`` entries are relative to its directory.
        columns: our name -> the file's name, for columns called otherwise.
        limit: read no more than this many rows.

    Raises:
        InputError: the file is missing, empty, of an unknown kind or damaged, or lacks a question or an id.
    """
    if not path.is_file():
        raise InputError(f"no sample file at {path}; expected a {', '.join(FORMATS)} file with a column 'question'")
    try:
        table = _READERS[path.suffix](path)
    except KeyError:
        raise InputError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(FORMATS)}") from None
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {error}; mend it, or write it again") from error
    return sample_table(table, path, columns, limit)


def sample_table(
    table: pa.Table, path: Path, columns: Mapping[str, str] | None = None, limit: int | None = None
) -> pa.Table:
    """A table that was read as a sample table: columns mapped, ids made or checked, questions there.

    Args:
        table: as it was read.
        path: where it comes from, for messages.
        columns: our name -> the table's name, for columns called otherwise.
        limit: keep no more than this many rows.

    Raises:
        InputError: there are no rows, or a question, an id or a mapped column is missing.
    """
    for name, given in (columns or {}).items():
        if given not in table.column_names:
            raise InputError(
                f"{path} has no column {given!r} (it has {', '.join(table.column_names)}); give one of these"
            )
        if given != name and name in table.column_names:
            table = table.drop_columns([name])
        table = table.rename_columns([name if c == given else c for c in table.column_names])
    if table.num_rows == 0:
        raise InputError(f"{path} holds no rows; expected at least one question")
    if "question" not in table.column_names:
        raise InputError(
            f"{path} has no column 'question' (it has {', '.join(table.column_names) or 'none'}); "
            "rename it, or map it with --column question=NAME"
        )
    table = _with_ids(path, table)
    if limit is not None:
        table = table.slice(0, limit)
    rows = zip(table["id"].to_pylist(), table["question"].to_pylist(), strict=True)
    blank = [i for i, q in rows if not isinstance(q, str) or not q.strip()]
    if blank:
        raise InputError(f"{path}: {len(blank)} rows have no question (first id {blank[0]!r}); remove or fill them")
    return table


def rebased(table: pa.Table, old: Path, new: Path) -> pa.Table:
    """The table with its ``image`` paths, relative to ``old`` so far, relative to ``new``."""
    if "image" not in table.column_names:
        return table
    moved = [
        os.path.relpath(old.resolve() / image, new.resolve()) if image else None for image in table["image"].to_pylist()
    ]
    return table.set_column(table.column_names.index("image"), "image", pa.array(moved, pa.string()))


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet, whole or not at all.

    Raises:
        InputError: the place cannot be written to.
    """
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, partial)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); give another place") from error


def samples_of(table: pa.Table, directory: Path, classes: Sequence[str] | None = None) -> list[Sample]:
    """The rows of a table as samples.

    Args:
        table: as `read_table` gives it.
        directory: what ``image`` entries are relative to.
        classes: the class slugs that are allowed; ``None`` does not check.

    Raises:
        InputError: a class or a split that is not known.
    """
    rows = table.to_pylist()
    samples = [_sample(row, directory) for row in rows]
    for sample in samples:
        if sample.split is not None and sample.split not in SPLITS:
            raise InputError(f"sample {sample.id!r} has split {sample.split!r}; expected one of {', '.join(SPLITS)}")
        if classes is not None and sample.label is not None and sample.label not in classes:
            raise InputError(f"sample {sample.id!r} has class {sample.label!r}; expected one of {', '.join(classes)}")
    return samples


def _with_ids(path: Path, table: pa.Table) -> pa.Table:
    if "id" not in table.column_names:
        return table.add_column(0, "id", pa.array([str(i) for i in range(table.num_rows)]))
    try:
        table = table.set_column(table.column_names.index("id"), "id", table["id"].cast(pa.string()))
    except pa.ArrowException as error:
        raise InputError(f"{path}: the ids are of type {table['id'].type}; expected texts or numbers") from error
    times = Counter(table["id"].to_pylist())
    if None in times:
        raise InputError(f"{path}: {times[None]} rows have no id; give each its own, or remove the column")
    if len(times) < table.num_rows:
        raise InputError(f"{path} holds the id {times.most_common(1)[0][0]!r} more than once; ids must be unique")
    return table


def _sample(row: Mapping[str, Any], directory: Path) -> Sample:
    answers, image = row.get("answers"), row.get("image")
    if image is not None and not isinstance(image, str):
        raise InputError(f"sample {row['id']!r} has the image {image!r}; expected the path of a file")
    if answers is not None and not isinstance(answers, list):
        answers = [answers]
    return Sample(
        id=row["id"],
        question=row["question"],
        image=directory / image if image else None,
        answers=tuple(str(a) for a in answers or () if a is not None),
        metric=row.get("metric"),
        split=row.get("split"),
        intent=row.get("intent"),
        label=row.get("class"),
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
    # Arrow's from_pylist would take the columns of the first row and drop all others.
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


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
