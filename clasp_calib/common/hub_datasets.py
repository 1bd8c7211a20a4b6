"""Sample tables from the datasets library: a directory of ``save_to_disk``, or a dataset on the Hugging Face Hub."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.errors import InputError

_HUB = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")
_MARKS = ("dataset_info.json", "dataset_dict.json")
"""What `save_to_disk` leaves of a dataset, or of one with named splits."""


def is_dataset(source: Path) -> bool:
    """Whether a place is no sample file but a saved dataset, or has the form ``org/name`` or ``org/name@revision``."""
    if source.exists():
        return source.is_dir()
    return _HUB.match(str(source)) is not None and source.suffix not in (".parquet", ".jsonl", ".csv")


def read_dataset(source: Path, split: str | None, pictures: Path, limit: int | None = None) -> pa.Table:
    """Read a dataset as a table.

    Pictures that it holds are written as files, each different one once under the hash of its bytes, and the column
    then holds their absolute paths.

    Args:
        source: a directory that `save_to_disk` made, or ``org/name`` with an optional ``@revision`` on the Hub.
        split: which of its splits; may be left out if it has one.
        pictures: directory for pictures; made if there are any.
        limit: read no more than this many rows.

    Raises:
        InputError: datasets is not installed; the place holds no dataset, or cannot be reached; or the split is unknown
            or not given.
    """
    _check_place(source)
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{source} is a dataset, which needs the datasets library; pip install 'clasp-calib[eval]', or give a "
            "Parquet, JSONL or CSV file"
        ) from error
    loaded = _loaded(datasets, source)
    if isinstance(loaded, dict):
        names = list(loaded)
        if split is None and len(names) == 1:
            split = names[0]
        if split not in names:
            given = "no split was named" if split is None else f"there is no split {split!r}"
            raise InputError(f"{source}: {given}; name one of {', '.join(names)} with --dataset-split")
        loaded = loaded[split]
    elif split is not None:
        raise InputError(f"{source} has no named splits; leave --dataset-split {split} out")
    if limit is not None:
        loaded = loaded.select(range(min(limit, len(loaded))))
    images = [name for name, feature in loaded.features.items() if isinstance(feature, datasets.Image)]
    for name in images:
        loaded = loaded.cast_column(name, datasets.Image(decode=False))
    table: pa.Table = loaded.with_format("arrow")[:]
    for name in images:
        paths = [_written(picture, pictures, source) for picture in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(paths, pa.string()))
    return table


def _check_place(source: Path) -> None:
    if source.is_dir():
        if not any((source / mark).is_file() for mark in _MARKS):
            raise InputError(
                f"{source} is a directory without {' or '.join(_MARKS)}; give one that datasets' save_to_disk made, or "
                "a sample file"
            )
    elif _HUB.match(str(source)) is None:
        raise InputError(
            f"{source} is neither a file nor a directory, nor of the form org/name@revision; give one of these"
        )


def _loaded(datasets: Any, source: Path) -> Any:
    if source.is_dir():
        load, words = datasets.load_from_disk, {"dataset_path": str(source)}
    else:
        found = _HUB.match(str(source))
        assert found is not None
        load, words = datasets.load_dataset, {"path": found["name"], "revision": found["revision"]}
    try:
        return load(**words)
    except Exception as error:  # The library and its client raise errors of many kinds, all about this place.
        raise InputError(
            f"cannot load the dataset {source} ({type(error).__name__}: {error}); check its name and the network, or "
            "give a file"
        ) from error


def _written(picture: dict[str, Any] | None, directory: Path, source: Path) -> str | None:
    """The absolute path of a picture's file."""
    if picture is None:
        return None
    content = picture["bytes"]
    if content is None:
        return str(Path(picture["path"]).resolve())
    from PIL import Image

    try:
        suffix = (Image.open(io.BytesIO(content)).format or "").lower()
    except OSError as error:
        raise InputError(f"{source} holds a picture that cannot be read ({error}); remove its row") from error
    path = directory.resolve() / f"{hashlib.sha256(content).hexdigest()[:32]}.{suffix}"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".tmp")
        partial.write_bytes(content)
        partial.replace(path)
    return str(path)
