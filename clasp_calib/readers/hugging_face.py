"""Datasets of the Hugging Face Hub, and what lies on the disk of them: ``hf:ORG/NAME[@REVISION][:CONFIG][:SPLIT]``."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular
from clasp_calib.common.hub_datasets import (
    dataset_tables,
    is_saved_dataset,
    named_classes,
    parquet_files,
    places_of,
    read_dataset,
)
from clasp_calib.common.sample_readers import SampleReader, SampleSource

_ROWS = 64
"""Rows that are held at a time, with their pictures."""
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


class _Named(NamedTuple):
    """What a source names."""

    place: Path
    """A directory, a Parquet file, or ``org/name@revision``."""
    config: str | None
    split: str | None


class HuggingFaceReader(SampleReader):
    """A dataset on the Hub, a directory of ``save_to_disk`` or of Parquet files, or one Parquet file.

    Columns are those of the dataset; none is renamed. The one name behind that of the dataset is a configuration if the
    dataset has one of that name, and a split otherwise; ``hf:NAME::SPLIT`` always means the split.
    """

    about: ClassVar[str] = "datasets of the Hugging Face Hub"
    splits: ClassVar[bool] = True

    def rows(self, source: SampleSource) -> Iterator[pa.Table]:
        """See `SampleReader`."""
        named = _named(source)
        place, split = named.place, named.split
        if place.is_file():
            if split is not None:
                raise InputError(f"{place} is a file, and {split!r} would be a split of a dataset; leave it out")
            yield from _parquet(place, None)
        elif place.is_dir() and not is_saved_dataset(place):
            files = parquet_files(place, split)
            for file in files:
                yield from _parquet(file, files[0])
        else:
            loaded = read_dataset(place, None, None, named.config)
            yield from dataset_tables(loaded, source.text, split, _ROWS)

    def home(self, source: SampleSource) -> Path:
        """See `SampleReader`."""
        place = _named(source).place
        return source.image_root or (place.parent if place.is_file() else place if place.is_dir() else Path())

    def within(self, source: SampleSource) -> Sequence[Path]:
        """See `SampleReader`; a file may name pictures anywhere, as everybody's own."""
        place = _named(source).place
        return () if place.is_file() else (source.image_root,) if source.image_root else places_of(place)


def _named(source: SampleSource) -> _Named:
    name, *behind = [source.text] if Path(source.text).exists() else source.text.split(":")
    if len(behind) > 2:
        raise InputError(f"hf:{source.text} has {len(behind)} names behind the dataset; expected hf:NAME:CONFIG:SPLIT")
    place = Path(name)
    if not place.exists():
        if not _HUB.fullmatch(name):
            raise InputError(
                f"hf:{source.text} names neither a dataset on the Hub nor a directory that is there; expected "
                "hf:ORG/NAME[@REVISION][:CONFIG][:SPLIT]"
            )
        place = Path(name if "@" in name else f"{name}@main")
    config, split = [*behind, None, None][:2] if len(behind) != 1 else _sorted(place, behind[0])
    if split and source.split and split != source.split:
        raise InputError(
            f"hf:{source.text} names the split {split!r}, and the dataset split is {source.split!r}; name one"
        )
    if config and place.is_dir():
        place, config = place / config, None
    return _Named(place, config or None, split or source.split)


def _sorted(place: Path, name: str) -> tuple[str | None, str | None]:
    """Whether one name is that of a configuration, or of a split."""
    if place.exists():
        return (name, None) if (place / name).is_dir() and not is_saved_dataset(place) else (None, name)
    try:
        import datasets

        configs = datasets.get_dataset_config_names(*str(place).split("@")[:1], revision=str(place).split("@")[1])
    except ImportError:
        return None, name  # Reading it says what is missing.
    except Exception as error:  # The library and its client raise errors of many kinds, all about this place.
        raise InputError(
            f"cannot ask which configurations {place} has ({type(error).__name__}: {error}); check its name and the "
            f"network, or say hf:{place}::{name} if {name!r} is a split"
        ) from error
    return (name, None) if name in configs else (None, name)


def _parquet(path: Path, like: Path | None) -> Iterator[pa.Table]:
    check_regular(path, "Parquet file")
    try:
        if like is not None and set(pq.read_schema(path).names) != set(pq.read_schema(like).names):
            raise InputError(f"{path} has other columns than {like}; write them with equal columns")
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                table = pa.Table.from_batches([batch], file.schema_arrow)
                table.validate(full=True)  # What a page holds as text need not be UTF-8.
                yield named_classes(table)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}); write it again") from error
