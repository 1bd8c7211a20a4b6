"""Samples in order, with the table that they came in."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from clasp_calib.common.hashing import sha256_file
from clasp_calib.common.media import Media, MemoryPicture
from clasp_calib.common.sample_table import (
    check_writable,
    classes_of,
    json_lines,
    moved,
    samples_of,
    with_media,
    write_table,
)
from clasp_calib.common.samples import Sample
from clasp_calib.common.text_tables import html_table, text_table


class Samples(Sequence[Sample]):
    """A sequence of `clasp_calib.common.samples.Sample` that keeps the table behind it, all its columns included.

    `clasp_calib.load_samples` makes it. An index gives a sample; a slice gives samples.

    Args:
        table: as `clasp_calib.common.sample_table.sample_table` gives it.
        home: what paths in it are relative to.
        name: what it is called in messages.
        held: pictures that are in memory only, by what stands for them in the table.
        file: the file that holds exactly this table, if one does.

    Raises:
        InputError: a split is unknown, or a picture is none.
    """

    def __init__(
        self,
        table: pa.Table,
        home: Path,
        name: str,
        held: Mapping[str, MemoryPicture] | None = None,
        file: Path | None = None,
    ):
        self.table = table
        """The rows, a ``pyarrow.Table``; `clasp_calib.common.sample_table` names the columns."""
        self.home = home
        self.name = name
        self.held = dict(held or {})
        """Pictures that are in memory only, by what stands for them in the table."""
        for _ in self:
            """Odd rows are refused here, not where they are used."""
        # At once: the file may be another one when it is asked for.
        self._of_file = None if file is None else sha256_file(file)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> "Samples": ...

    def __getitem__(self, place: int | slice) -> "Sample | Samples":
        if isinstance(place, slice):
            return self.with_table(self.table.take(list(range(len(self)))[place]))
        row = range(len(self))[place]
        return next(samples_of(self.table.slice(row, 1), self.home, self.held))

    def __iter__(self) -> Iterator[Sample]:
        # Made anew each time: a million of them would need gigabytes.
        return samples_of(self.table, self.home, self.held)

    def __len__(self) -> int:
        rows: int = self.table.num_rows
        return rows

    @property
    def labels(self) -> Iterator[str | None]:
        """The class of each sample."""
        return classes_of(self.table)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the file that holds exactly these samples, as it was read, or else of their rows."""
        if self._of_file is not None:
            return self._of_file
        digest = sha256()
        for place, line in enumerate(json_lines(self.table, str, sort_keys=True)):
            digest.update(f"\n{line}".encode() if place else line.encode())
        return digest.hexdigest()

    def with_table(self, table: pa.Table) -> "Samples":
        """Samples of another table with the same pictures: of some of the rows, or with further columns."""
        return Samples(table, self.home, self.name, self.held)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the table, whole or not at all, as Parquet or JSONL by the path's end.

        Paths in it become relative to the file. Pictures that are only in memory are written into ``pictures/`` beside
        it.

        Raises:
            InputError: the path has another end, or the place cannot be written to.
        """
        target = Path(path)
        check_writable(target)

        there = moved(self.home, target.parent)

        def written(path: str) -> str:
            return there(str(self.held[path].write(target.parent / "pictures")) if path in self.held else path)

        write_table(self.table, target, lambda part: with_media(part, written))

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``."""
        return self.table.to_pandas()

    def __repr__(self) -> str:
        return f"{self._title()}\n{text_table(*self._counts())}"

    def _repr_html_(self) -> str:
        return html_table(*self._counts(), self._title())

    def _title(self) -> str:
        pictures: set[Media] = {one for sample in self for one in sample.media}
        return f"{len(self)} questions about {len(pictures)} pictures, from {self.name}"

    def _counts(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: questions by class and split."""
        counts = Counter((sample.label or "no class yet", sample.split or "no split") for sample in self)
        classes, splits = (list(dict.fromkeys(pair[place] for pair in counts)) for place in (0, 1))
        return ["class", *splits], [[name, *(str(counts[name, split]) for split in splits)] for name in classes]
