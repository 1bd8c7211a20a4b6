"""Samples from wherever a user has them: files, datasets, lists, tables and data frames."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.errors import InputError
from clasp_calib.common.hub_datasets import dataset_table, is_dataset, load_dataset
from clasp_calib.common.media import MemoryPicture, as_media
from clasp_calib.common.sample_set import Samples
from clasp_calib.common.sample_table import read_file, sample_table, table_of
from clasp_calib.common.samples import Sample


def load_samples(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    dataset_split: str | None = None,
    pictures: str | PathLike[str] | None = None,
) -> Samples:
    """Questions about pictures, from a file, a dataset or whatever a notebook holds.

    Every row needs a ``question``. ``image`` holds the path of a picture, relative to the file or directory that the
    row is in, or the picture itself; all else is optional. Columns without a meaning here pass through.

    Args:
        source: path of a Parquet, JSONL or CSV file, or of a directory that datasets' ``save_to_disk`` made;
            ``org/name@revision``, a dataset on the Hugging Face Hub; a list of `Sample` or of dicts; a data frame of
            pandas or polars, a pyarrow table or anything else that speaks Arrow's C stream; or a dataset of the
            datasets library.
        columns: our name -> the source's name, for columns called otherwise.
        limit: use the first rows only.
        dataset_split: which split of a dataset; not needed if it has one.
        pictures: directory where pictures that came in the rows are written as files; None keeps them in memory.

    Raises:
        InputError: the source cannot be read, or is nothing of the above; there are no rows; a row has no question or
            a picture that is none; ids are not unique; a split is unknown.
    """
    if isinstance(source, Samples) and all(one is None for one in (limit, columns, dataset_split, pictures)):
        return source
    if isinstance(source, str):
        source = Path(source)
    place = Path(source) if isinstance(source, PathLike) else None
    dataset = _is_from("datasets", source) or (place is not None and is_dataset(place))
    if dataset_split is not None and not dataset:
        what = f"{place} is a file" if place else "the samples are no dataset"
        raise InputError(f"{what}, and a dataset split ({dataset_split!r}) is for datasets; leave it out")
    cells = _Cells(None if pictures is None else Path(pictures))
    name, home, file = str(place), Path(), None
    if isinstance(source, Samples):
        table, name, home = source.table[:limit], source.name, source.home
        cells.held |= source.held
    elif dataset:
        loaded = source if place is None else load_dataset(place)
        name = "the dataset" if place is None else name
        home = place if place is not None and place.is_dir() else home
        table, images = dataset_table(loaded, name, dataset_split, limit)
        table = cells.settled(table, images, name)
    elif place is not None:
        whole = read_file(place)
        table, home = whole[:limit], place.parent
        file = place if len(table) == len(whole) and not columns else None
    else:
        table, name = _in_memory(source, (columns or {}).get("image", "image"), limit, cells)
    table = cells.settled(sample_table(table, name, columns), ["image"], name)
    return Samples(table, home, name, cells.held, file)


def _is_from(library: str, source: Any) -> bool:
    return type(source).__module__.split(".")[0] == library


def _in_memory(source: Any, image: str, limit: int | None, cells: "_Cells") -> tuple[pa.Table, str]:
    """A table of rows, a data frame or an Arrow table, and what to call it."""
    if _is_from("pandas", source) and hasattr(source, "columns"):
        name, frame = "the data frame", source[:limit]
        # Arrow knows no objects: pictures are taken out before.
        held = frame[image].to_list() if image in frame else None
        table = pa.Table.from_pandas(frame.drop(columns=[image] if held else []), preserve_index=False)
        if held:
            texts = [None if isinstance(cell, float) else cell for cell in held]
            table = table.append_column(image, cells.texts(texts, name))
        return table, name
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)[:limit], "the table"
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return _of_rows(list(source)[:limit], image, cells), "the list of samples"
    raise InputError(
        f"samples cannot be read from a {type(source).__name__}; give a path, org/name@revision, a list of Sample or "
        "of dicts, a data frame, a pyarrow table or a dataset"
    )


def _of_rows(rows: Sequence[Any], image: str, cells: "_Cells") -> pa.Table:
    name = "the list of samples"
    columns = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Sample | Mapping):
            raise InputError(f"row {number} of {name} is a {type(row).__name__}; expected a Sample or a dict")
    dicts = [_row(row) if isinstance(row, Sample) else dict(row) for row in rows]
    if any(image in row for row in dicts):
        columns[image] = cells.texts([row.pop(image, None) for row in dicts], name)
    try:
        table = table_of(dicts)
    except ValueError as error:
        raise InputError(f"{name} makes no table: {error}; give values of one kind") from error
    for column, texts in columns.items():
        table = table.append_column(column, texts)
    return table


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


@dataclass
class _Cells:
    """Cells that hold pictures, and the texts that stand for them."""

    directory: Path | None
    """Where pictures are written; None keeps them."""
    held: dict[str, MemoryPicture] = field(default_factory=dict)
    """Text -> picture."""

    def settled(self, table: pa.Table, columns: Iterable[str], name: str) -> pa.Table:
        """The table with texts where it had pictures."""
        for column in columns:
            if column in table.column_names:
                kind = table.schema.field(column).type
                inner = kind.value_type if pa.types.is_list(kind) else kind
                if pa.types.is_struct(inner) or pa.types.is_binary(inner) or pa.types.is_large_binary(inner):
                    texts = self.texts(table[column].to_pylist(), name)
                    table = table.set_column(table.column_names.index(column), column, texts)
        return table

    def texts(self, cells: Sequence[Any], name: str) -> pa.Array:
        """One text a cell, or a list of them."""
        found = []
        for number, cell in enumerate(cells):
            try:
                found.append([self._text(one) for one in cell] if isinstance(cell, list | tuple) else self._text(cell))
            except TypeError as error:
                raise InputError(
                    f"{name}: the image of row {number} is a {type(cell).__name__}; expected a path or a picture"
                ) from error
            except OSError as error:
                raise InputError(
                    f"{name} holds a picture that cannot be read ({error}) in row {number}; remove it"
                ) from error
        if any(isinstance(cell, list) for cell in found):
            found = [cell if isinstance(cell, list) else [] if cell is None else [cell] for cell in found]
            return pa.array(found, pa.list_(pa.string()))
        return pa.array(found, pa.string())

    def _text(self, cell: Any) -> str | None:
        if isinstance(cell, Mapping):  # as datasets keeps an image
            cell = cell["bytes"] if cell.get("bytes") is not None else Path(cell["path"]).resolve()
        if cell is None or cell == "":
            return None
        media = as_media(cell)
        if isinstance(media, MemoryPicture):
            if self.directory is not None:
                return str(media.write(self.directory))
            self.held[str(media)] = media
        return str(media)
