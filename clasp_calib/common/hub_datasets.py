"""Tables of the datasets library: a directory of ``save_to_disk``, a dataset on the Hugging Face Hub, or one loaded."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.errors import InputError
from clasp_calib.common.table_readers import read_file

_HUB = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<revision>[\w./-]+)$")
_MARKS = ("dataset_info.json", "dataset_dict.json")
"""What `save_to_disk` leaves of a dataset, or of one with named splits."""
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})")
_PART = re.compile(r"[-_.]?\d[\w.-]*$")


def is_dataset(source: Path) -> bool:
    """Whether a place is no sample file but a directory, or of the form ``org/name@revision``."""
    try:
        return source.is_dir() if source.exists() else _HUB.match(str(source)) is not None
    except OSError:  # A name too long, a directory that may not be looked into.
        return False


def is_saved_dataset(source: Path) -> bool:
    """Whether a directory is one that datasets' ``save_to_disk`` made."""
    return any((source / mark).is_file() for mark in _MARKS)


def places_of(source: Path) -> tuple[Path, ...]:
    """The directories that a dataset's pictures lie in: its own, or where the Hub's client keeps what it fetched."""
    found = _HUB.match(str(source))
    if source.is_dir() or found is None:
        return (source,)
    from datasets import config
    from huggingface_hub import constants

    fetched = Path(constants.HF_HUB_CACHE) / f"datasets--{found['name'].replace('/', '--')}"
    return fetched, Path(config.EXTRACTED_DATASETS_PATH)


def read_dataset(source: Path, split: str | None, columns: Mapping[str, str] | None, config: str | None = None) -> Any:
    """What the datasets library holds at a place, or the table of a directory of Parquet files.

    Args:
        source: a directory that `save_to_disk` made; one of Parquet files, named as a dataset's repository names them
            (``train-00000-of-00002.parquet``) or ``train.parquet``; or ``org/name@revision`` on the Hub.
        split: which of the splits that Parquet files are named after; may be left out if there is one.
        columns: our name -> the source's name, for columns called otherwise.
        config: which of the configurations that a dataset on the Hub has; may be left out if it has one.

    Raises:
        InputError: datasets is not installed; the place holds no dataset, or cannot be reached; a file of several is
            missing, or they differ in their columns.
    """
    if source.is_dir() and not is_saved_dataset(source):
        tables = [named_classes(read_file(file, columns)) for file in parquet_files(source, split)]
        try:
            if any(set(table.column_names) != set(tables[0].column_names) for table in tables):
                raise ValueError("not all have the same columns")
            # In any order, and where one file has nothing in a column it may not know of what kind that is.
            return pa.concat_tables(tables, promote_options="default")
        except (ValueError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the files of {source} differ ({reason}); write them with equal columns") from error
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{source} is a dataset, which needs the datasets library; pip install 'clasp-calib[datasets]', or give a "
            "Parquet, JSONL or CSV file"
        ) from error
    try:
        if source.is_dir():
            return datasets.load_from_disk(str(source))
        found = _HUB.match(str(source))
        assert found is not None
        return datasets.load_dataset(found["name"], *([config] if config else []), revision=found["revision"])
    except Exception as error:  # The library and its client raise errors of many kinds, all about this place.
        raise InputError(
            f"cannot load the dataset {source} ({type(error).__name__}: {error}); check its name and the network, or "
            "give a file"
        ) from error


def parquet_files(directory: Path, split: str | None) -> list[Path]:
    """The Parquet files of a split in a directory, in order; see `read_dataset`.

    Raises:
        InputError: there are none, or not all; there are those of several splits, and none of them is named.
    """
    of: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(file for file in directory.glob("*.parquet") if file.is_file()):
        shard = _SHARD.fullmatch(file.stem)
        of[shard["split"] if shard else _PART.sub("", file.stem)].append(file)
    if not of:
        inner = sorted({str(file.parent) for depth in ("*", "*/*") for file in directory.glob(f"{depth}/*.parquet")})
        if inner:
            raise InputError(f"{directory} has Parquet files in directories of its own; give {' or '.join(inner[:3])}")
        raise InputError(
            f"{directory} is a directory without {' or '.join(_MARKS)}, and without Parquet files; give one that "
            "datasets' save_to_disk made, one of Parquet files, or a sample file"
        )
    split = next(iter(of)) if split is None and len(of) == 1 else split
    if split not in of:
        raise InputError(
            f"{directory} holds files of {len(of)} splits; name one of {', '.join(map(repr, of))} with --dataset-split "
            "(in Python: dataset_split=)"
        )
    shards = [shard for file in of[split] if (shard := _SHARD.fullmatch(file.stem))]
    wanted = {int(shard["of"]) for shard in shards}
    if shards and (len(shards) < len(of[split]) or wanted != {len(shards)}):
        raise InputError(
            f"{directory} holds {len(of[split])} files of {split!r}, {of[split][0].name} to {of[split][-1].name}, and "
            f"their names tell of {max(wanted)}; fetch what is missing, or remove what is of another set"
        )
    return of[split]


def named_classes(table: pa.Table) -> pa.Table:
    """The table with names where the datasets library keeps the numbers of classes (its ``ClassLabel``).

    Raises:
        InputError: a number that has no name.
    """
    try:
        about = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        features = dict(about["info"]["features"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return table
    for column, feature in features.items():
        if column in table.column_names and '"_type": "ClassLabel"' in json.dumps(feature):
            cells = [_named(cell, feature, column) for cell in table[column].to_pylist()]
            table = table.set_column(table.column_names.index(column), column, pa.array(cells))
    return table


def _named(cell: Any, feature: Any, column: str) -> Any:
    """A cell with names for classes, wherever in it they are."""
    if isinstance(feature, list) and feature:
        feature = feature[0]
    elif isinstance(feature, dict) and "_type" in feature and "feature" in feature:
        feature = feature["feature"]
    if cell is None or not isinstance(feature, dict):
        return cell
    if isinstance(cell, list):
        return [_named(one, feature, column) for one in cell]
    if isinstance(cell, dict):
        return {key: _named(one, feature.get(key), column) for key, one in cell.items()}
    if feature.get("_type") != "ClassLabel":
        return cell
    if cell == -1:
        return None
    names = feature.get("names")
    if isinstance(names, list) and isinstance(cell, int) and 0 <= cell < len(names):
        return str(names[cell])
    raise InputError(f"the column {column!r} holds the class {cell!r}, which has no name; mend the dataset")


def dataset_table(loaded: Any, name: str, split: str | None, limit: int | None) -> tuple[pa.Table, list[str]]:
    """A loaded dataset as a table, and which of its columns hold pictures, each as its bytes and path.

    Args:
        loaded: a ``datasets.Dataset`` or ``DatasetDict``.
        name: what it is called in messages.
        split: which of its splits; may be left out if it has one.
        limit: read no more than this many rows.

    Raises:
        InputError: the split is unknown or not given, or the rows are a stream.
    """
    rows, images = _undecoded(loaded, name, split)
    return _arrow(rows, 0, len(rows) if limit is None else limit), images


def dataset_tables(loaded: Any, name: str, split: str | None, size: int) -> Iterator[pa.Table]:
    """A loaded dataset as tables of ``size`` rows, of which no more than one is held; see `dataset_table`."""
    rows, _ = _undecoded(loaded, name, split)
    for start in range(0, len(rows), size):
        yield _arrow(rows, start, start + size)


def _arrow(rows: Any, start: int, stop: int) -> pa.Table:
    table = rows.with_format("arrow")[start : min(stop, len(rows))]
    return named_classes(table.replace_schema_metadata(rows.features.arrow_schema.metadata))


def _undecoded(loaded: Any, name: str, split: str | None) -> tuple[Any, list[str]]:
    """The ``datasets.Dataset`` of a split with pictures as their bytes and path, and which columns hold these."""
    import datasets

    if isinstance(loaded, dict):
        names = list(loaded)
        if split is None and len(names) == 1:
            split = names[0]
        if split not in names:
            given = "no split was named" if split is None else f"there is no split {split!r}"
            raise InputError(
                f"{name}: {given}; name one of {', '.join(names)} with --dataset-split (in Python: dataset_split=)"
            )
        loaded = loaded[split]
    elif split is not None:
        raise InputError(f"{name} has no named splits; leave the dataset split {split!r} out")
    if not isinstance(loaded, datasets.Dataset):
        raise InputError(f"{name} is a {type(loaded).__name__}; expected a Dataset, whose rows are all there")
    kept = datasets.Image(decode=False)
    images = {name: kept for name, feature in loaded.features.items() if isinstance(feature, datasets.Image)}
    for column, feature in loaded.features.items():
        if isinstance(getattr(feature, "feature", None), datasets.Image):
            images[column] = type(feature)(kept)
    for column, feature in images.items():
        loaded = loaded.cast_column(column, feature)
    return loaded, list(images)
