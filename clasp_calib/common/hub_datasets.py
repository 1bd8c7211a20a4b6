"""Tables of the datasets library: a directory of ``save_to_disk``, a dataset on the Hugging Face Hub, or one loaded."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.errors import InputError

_HUB = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<revision>[\w./-]+)$")
_MARKS = ("dataset_info.json", "dataset_dict.json")
"""What `save_to_disk` leaves of a dataset, or of one with named splits."""


def is_dataset(source: Path) -> bool:
    """Whether a place is no sample file but a directory, or of the form ``org/name@revision``."""
    return source.is_dir() if source.exists() else _HUB.match(str(source)) is not None


def load_dataset(source: Path) -> Any:
    """What the datasets library holds at a place.

    Args:
        source: a directory that `save_to_disk` made, or ``org/name@revision`` on the Hub.

    Raises:
        InputError: datasets is not installed; or the place holds no dataset, or cannot be reached.
    """
    if source.is_dir() and not any((source / mark).is_file() for mark in _MARKS):
        raise InputError(
            f"{source} is a directory without {' or '.join(_MARKS)}; give one that datasets' save_to_disk made, or "
            "a sample file"
        )
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
        return datasets.load_dataset(found["name"], revision=found["revision"])
    except Exception as error:  # The library and its client raise errors of many kinds, all about this place.
        raise InputError(
            f"cannot load the dataset {source} ({type(error).__name__}: {error}); check its name and the network, or "
            "give a file"
        ) from error


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
    if limit is not None:
        loaded = loaded.select(range(min(limit, len(loaded))))
    images = [name for name, feature in loaded.features.items() if isinstance(feature, datasets.Image)]
    for column in images:
        loaded = loaded.cast_column(column, datasets.Image(decode=False))
    return loaded.with_format("arrow")[:], images
