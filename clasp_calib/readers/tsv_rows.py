"""TSV files of any size, row after row, each with where it stands and where it can be found again."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import regular_file


class RowStart(NamedTuple):
    """Where a row begins."""

    byte: int
    line: int


class TsvRow(NamedTuple):
    """A row of a TSV."""

    where: str
    """The file and the line that it begins in."""
    start: RowStart
    """See `TsvRows.at`."""
    cells: dict[str, str]
    """By column; those that are empty are left out."""


_TOP = RowStart(0, 1)


class TsvRows:
    """The rows of a TSV with a header, as pandas writes it: texts with tabs, line breaks or quotes are in quotes.

    Args:
        path: of a regular file in UTF-8.

    Raises:
        InputError: it cannot be read, has no header, or a column stands there twice.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._open(_TOP) as rows:
            self._header = next(rows, (_TOP, []))[1]
        if len(self._header) < 2 or len(set(self._header)) < len(self._header):
            raise InputError(
                f"{path}: line 1: the columns are {', '.join(self._header)[:200] or 'none'}; expected different names "
                "with tabs between them"
            )

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._header)

    def __iter__(self) -> Iterator[TsvRow]:
        """All rows in order.

        Raises:
            InputError: a row has more or fewer cells than the header, or is no row.
        """
        with self._open(_TOP) as rows:
            next(rows)
            for start, cells in rows:
                yield self._row(start, cells)

    def at(self, start: RowStart) -> TsvRow:
        """The row that begins there."""
        with self._open(start) as rows:
            return self._row(*next(rows))

    def _row(self, start: RowStart, cells: list[str]) -> TsvRow:
        where = f"{self.path}: line {start.line}"
        if len(cells) != len(self._header):
            raise InputError(
                f"{where} has {len(cells)} cells, and the header {len(self._header)} columns; mend the row: texts with "
                "tabs or line breaks are put in quotes"
            )
        return TsvRow(where, start, {name: cell for name, cell in zip(self._header, cells, strict=True) if cell})

    @contextmanager
    def _open(self, start: RowStart) -> Iterator[Iterator[tuple[RowStart, list[str]]]]:
        limit = csv.field_size_limit(sys.maxsize)  # A picture is one cell.
        try:
            with regular_file(self.path) as file:
                file.seek(start.byte)
                yield self._parsed(file, start)
        except OSError as error:
            raise InputError(f"cannot read {self.path} ({error.strerror}); check the file") from error
        finally:
            csv.field_size_limit(limit)

    def _parsed(self, file: BinaryIO, start: RowStart) -> Iterator[tuple[RowStart, list[str]]]:
        end, line = start

        def texts() -> Iterator[str]:
            nonlocal line, end
            for content in file:
                try:
                    text = content.decode("utf-8-sig" if line == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{self.path}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8"
                    ) from error
                line, end = line + 1, end + len(content)
                yield text

        reader = csv.reader(texts(), delimiter="\t", strict=True)
        while True:
            begin = RowStart(end, line)
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(f"{self.path}: line {begin.line}: {error}; mend the row") from error
            if cells:
                yield begin, cells
