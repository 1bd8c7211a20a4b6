"""Samples from wherever a user has them: files, datasets, lists, tables and data frames."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.answer_cells import is_nothing
from clasp_calib.common.errors import InputError
from clasp_calib.common.hub_datasets import dataset_table, is_dataset, named_classes, places_of, read_dataset
from clasp_calib.common.picture_cells import PictureCells
from clasp_calib.common.row_blocks import table_of
from clasp_calib.common.row_tables import PICTURED, table_of_rows
from clasp_calib.common.sample_readers import SampleSource, reader_for
from clasp_calib.common.sample_set import Samples
from clasp_calib.common.sample_table import sample_table, with_one_image_column
from clasp_calib.common.samples import Sample
from clasp_calib.common.settings import check_count, check_kind
from clasp_calib.common.table_readers import read_file, texts_of

_OURS = ("answers", "id")


def load_samples(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    dataset_split: str | None = None,
    pictures: str | PathLike[str] | None = None,
    image_root: str | PathLike[str] | None = None,
) -> Samples:
    """Questions about pictures, from a file, a dataset or whatever a notebook holds.

    Every row needs a ``question``. ``image`` holds the path of a picture or the picture itself, ``images`` a list of
    them; all else is optional. ``<image>`` in a question is the place of a picture, once for each, or pictures stand
    before the text.
    Columns without a meaning here pass through. Answers become texts: what can be none is refused with its row, see
    `clasp_calib.common.answer_cells`.

    Paths are relative to the file or directory that the row is in. Those of a dataset lead to what came with it; those
    of a file or of rows may lead anywhere.

    Args:
        source: path of a Parquet, JSONL or CSV file, of a directory that datasets' ``save_to_disk`` made, or of one
            with Parquet files, as a dataset's repository has it; files of a benchmark, which a prefix names
            (``vlmeval:FILE.tsv``, ``hf:ORG/NAME:CONFIG:SPLIT``) or their beginning tells, see
            `clasp_calib.common.sample_readers`; ``org/name@revision``, a dataset on the Hugging Face Hub; a list of
            `Sample` or of dicts; a data frame of pandas or polars, a pyarrow table or anything else that speaks Arrow's
            C stream; or a dataset of the datasets library.
        columns: our name -> the source's name, for columns called otherwise.
        limit: use the first rows only.
        dataset_split: which split of a dataset; not needed if it has one.
        pictures: directory where pictures that came in the rows are written as files; None keeps them in memory.
        image_root: directory that paths are relative to, instead.

    Raises:
        InputError: the source cannot be read, or is nothing of the above; there are no rows; a row has no question, a
            picture that is none, or places for another number of pictures; an answer is none; ids are not unique; a
            split is unknown; a dataset names a picture that did not come with it.
    """
    if limit is not None:
        check_count("limit", limit, 1)
    check_kind("columns", columns, Mapping, "our name -> the source's name, such as {'question': 'prompt'}")
    options = (columns, limit, dataset_split, pictures, image_root)
    if isinstance(source, Samples) and all(option is None for option in options):
        return source
    if isinstance(source, str):
        source = Path(source)
    place = Path(source) if isinstance(source, PathLike) else None
    chosen = None if place is None else reader_for(place, columns or {})
    dataset = chosen is None and (_is_from("datasets", source) or (place is not None and is_dataset(place)))
    if dataset_split is not None and not (chosen.reader.splits if chosen else dataset):
        what = f"{place} is a file" if place else "the samples are no dataset"
        raise InputError(f"{what}, and a dataset split ({dataset_split!r}) is for datasets; leave it out")
    root = None if image_root is None else _directory(Path(image_root))
    asked = SampleSource(chosen.text, dataset_split, root) if chosen else None
    foreign: Sequence[Path] = () if place is None or not dataset else (root,) if root else places_of(place)
    if chosen and asked:
        foreign = chosen.reader.within(asked)
    cells = PictureCells(None if pictures is None else Path(pictures), foreign)
    name, home, file = str(place), Path(), None
    if isinstance(source, Samples):
        table, name, home = source.table[:limit], source.name, source.home
        cells.held |= source.held
    elif chosen and asked:
        home = chosen.reader.home(asked)
        table = table_of_rows(chosen.reader.rows(asked), cells, home, name, limit)
    elif dataset:
        name = "the dataset" if place is None else name
        home = place if place is not None and place.is_dir() else home
        loaded = source if place is None else read_dataset(place, dataset_split, columns)
        if isinstance(loaded, pa.Table):
            table = loaded[:limit]
        else:
            table, images = dataset_table(loaded, name, dataset_split, limit)
            table = cells.settled(table, images, root or home, name)
    elif place is not None:
        whole = named_classes(read_file(place, columns))
        table, home = whole[:limit], place.parent
        file = place if len(table) == len(whole) and not columns else None
    else:
        table, name = _in_memory(source, columns or {}, limit, cells)
    table = sample_table(table, name, columns)
    table = with_one_image_column(cells.settled(table, PICTURED, root or home, name), name)
    return Samples(table, root or home, name, cells.held, file)


def _directory(root: Path) -> Path:
    try:
        if root.is_dir():
            return root
    except OSError:
        pass
    raise InputError(f"the directory of pictures {root} is none; give one that paths in the table are relative to")


def _is_from(library: str, source: Any) -> bool:
    return type(source).__module__.split(".")[0] == library


def _in_memory(source: Any, columns: Mapping[str, str], limit: int | None, cells: PictureCells) -> tuple[pa.Table, str]:
    """A table of rows, a data frame or an Arrow table, and what to call it."""
    name = "the table"
    try:
        if _is_from("pandas", source) and hasattr(source, "columns"):
            name = "the data frame"
            return _of_frame(source[:limit], columns, cells, name), name
        if hasattr(source, "__arrow_c_stream__"):
            return named_classes(pa.table(source)[:limit]), name
        if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
            name = "the list of samples"
            return _of_rows(list(source)[:limit], columns, cells, name), name
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} makes no table: {error}; give values of one kind") from error
    raise InputError(
        f"samples cannot be read from a {type(source).__name__}; give a path, org/name@revision, a list of Sample or "
        "of dicts, a data frame, a pyarrow table or a dataset"
    )


def _of_frame(frame: Any, columns: Mapping[str, str], cells: PictureCells, name: str) -> pa.Table:
    if not frame.columns.is_unique:
        raise ValueError("a column stands twice")
    # Arrow knows no objects: pictures are taken out before, and what pandas keeps in columns of mixed kinds.
    images = [columns.get(one, one) for one in PICTURED]
    ours = [column for column in (*images, *(columns.get(one, one) for one in _OURS)) if column in frame]
    table = pa.Table.from_pandas(frame.drop(columns=ours), preserve_index=False)
    # Of numpy, since pandas hands out a float32 as a double, with digits that it never had.
    cells_of = zip(*(frame[column].to_numpy() for column in ours), strict=True)
    rows = _texts([dict(zip(ours, row, strict=True)) for row in cells_of], columns)
    for column in ours:
        held = [row[column] for row in rows]
        array = cells.texts(held, Path(), name) if column in images else table_of([{column: c} for c in held])[column]
        table = table.append_column(column, array)
    return table


def _of_rows(rows: Sequence[Any], columns: Mapping[str, str], cells: PictureCells, name: str) -> pa.Table:
    taken = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Sample | Mapping):
            raise InputError(f"row {number} of {name} is a {type(row).__name__}; expected a Sample or a dict")
    dicts = _texts([_row(row) if isinstance(row, Sample) else dict(row) for row in rows], columns)
    for image in (columns.get(one, one) for one in PICTURED):
        if any(image in row for row in dicts):
            taken[image] = cells.texts([row.pop(image, None) for row in dicts], Path(), name)
    table = table_of(dicts)
    for column, texts in taken.items():
        table = table.append_column(column, texts)
    return table


def _texts(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows with texts as answers and ids, and nothing where pandas has NaN."""
    ours, found = {columns.get(one, one): one for one in _OURS}, []
    for number, row in enumerate(rows):
        try:
            found.append(texts_of(row, ours, lambda cell: None if is_nothing(cell) else cell))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    return found


def _row(sample: Sample) -> dict[str, Any]:
    """The columns of a sample; those that say nothing are left out."""
    row = {
        "id": sample.id,
        "question": sample.question,
        "image": list(sample.image) if isinstance(sample.image, tuple) else sample.image,
        "answers": list(sample.answers),
        "metric": sample.metric,
        "split": sample.split,
        "intent": sample.intent,
        "class": sample.label,
        "video": None if sample.video is None else str(sample.video),
    }
    return {column: value for column, value in row.items() if value not in (None, [])}
