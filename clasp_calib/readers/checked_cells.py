"""One row of a published format, with cells that are what they should be or are refused by place and name."""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clasp_calib.common.errors import InputError

_MEANT = {
    *("id", "question", "bare_question", "image", "images", "video", "answers", "metric", "split"),
    *("intent", "class", "gold_class", "confidence", "source", "rule", "raw", "labeler"),
}
"""Columns of the sample table."""


class Record(Mapping[str, Any]):
    """An object of JSON, or a row of a table, that knows where it stands.

    Args:
        cells: by column.
        where: the file and the place in it, such as ``questions.json: questions[3]``.

    Raises:
        InputError: ``cells`` is no mapping.
    """

    def __init__(self, cells: Any, where: str):
        if not isinstance(cells, Mapping):
            raise InputError(f"{where} is {_told(cells)}; expected an object")
        self._cells = cells
        self.where = where

    def __getitem__(self, column: str) -> Any:
        return self._cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def wrong(self, column: str, expected: str) -> InputError:
        """The error of a cell, to raise.

        Args:
            column: its name.
            expected: what it should be, and what to do.
        """
        if column not in self:
            return InputError(
                f"{self.where} has no {column!r} (it has {', '.join(map(str, self)) or 'none'}); expected {expected}"
            )
        return InputError(f"{self.where}: {column!r} is {_told(self[column])}; expected {expected}")

    def text(self, column: str, expected: str = "a text") -> str:
        """A text that is not blank, as it stands.

        Raises:
            InputError: it is missing, something else or blank, or holds half a character.
        """
        cell = self.get(column)
        if not isinstance(cell, str) or not cell.strip():
            raise self.wrong(column, expected)
        try:
            cell.encode()
        except UnicodeEncodeError:
            raise self.wrong(column, f"{expected} without half a character (a lone surrogate)") from None
        return cell

    def text_or_none(self, column: str, expected: str = "a text, or none") -> str | None:
        """A text, or None where the cell is missing, null or blank.

        Raises:
            InputError: it is something else.
        """
        cell = self.get(column)
        return None if cell is None or (isinstance(cell, str) and not cell.strip()) else self.text(column, expected)

    def whole(self, column: str, expected: str = "a whole number") -> int:
        """A whole number, which may be written as a text of digits.

        Raises:
            InputError: it is missing or something else.
        """
        cell = self.get(column)
        if isinstance(cell, int) and not isinstance(cell, bool):
            return cell
        if isinstance(cell, str) and cell.isascii() and cell.isdigit():
            return int(cell)
        raise self.wrong(column, expected)

    def key(self, column: str, expected: str = "a text or a whole number") -> str:
        """What names a row or a picture, a text or a whole number, as a text.

        Raises:
            InputError: it is missing, something else or blank.
        """
        cell = self.get(column)
        whole = isinstance(cell, int) and not isinstance(cell, bool)
        return str(cell) if whole else self.text(column, expected)

    def once(self, column: str, known: dict[str, str]) -> str:
        """What names a row, as `key` has it, and no other row.

        Args:
            column: its name.
            known: the names of the rows before, each with its place; this one is added.

        Raises:
            InputError: see `key`; or it is known.
        """
        name = self.key(column)
        if name in known:
            raise self.wrong(column, f"another one in each row ({known[name]} has it)")
        known[name] = self.where
        return name

    def list_of(self, column: str, expected: str = "a list that is not empty") -> Sequence[Any]:
        """A list with something in it.

        Raises:
            InputError: it is missing, something else or empty.
        """
        cell = self.get(column)
        if not isinstance(cell, list) or not cell:
            raise self.wrong(column, expected)
        return cell

    def texts(self, column: str, expected: str = "a list of texts that is not empty") -> list[str]:
        """A list of texts, none blank.

        Raises:
            InputError: it is missing, or something else.
        """
        items = self.list_of(column, expected)
        inner = Record({f"{column}[{place}]": item for place, item in enumerate(items)}, self.where)
        return [inner.text(place) for place in inner]

    def records(self, column: str, expected: str = "a list of objects that is not empty") -> list["Record"]:
        """A list of objects.

        Raises:
            InputError: it is missing, or something else.
        """
        items = self.list_of(column, expected)
        return [Record(item, f"{self.where}.{column}[{place}]") for place, item in enumerate(items)]

    def picture(self, column: str, home: Path, *names: str) -> str:
        """The first of some names that a picture has under ``home``.

        Args:
            column: of the cell that the names are made of, for messages.
            home: what names are relative to, see `clasp_calib.common.sample_readers.SampleSource.home`.
            names: relative paths, in the order in which they are tried; by default what stands in the cell.

        Raises:
            InputError: there is no such file.
        """
        tried = names or (self.text(column, "the name of a picture"),)
        for name in tried:
            try:
                if (home / name).is_file():
                    return name
            except (OSError, ValueError):  # A name too long, a NUL.
                continue
        raise InputError(
            f"{self.where}: {column!r} is {_told(self.get(column))}, and {home} has no {' nor '.join(tried)}; fetch "
            "the pictures and name their directory with --image-root (in Python: image_root=)"
        )


def passed_on(record: Mapping[str, Any], *taken: str) -> dict[str, Any]:
    """The cells of a record that pass through as columns: all single values but those that a reader takes itself.

    A column whose name means something else in a sample table becomes ``benchmark_NAME``: the ``split`` of a benchmark
    is none of a calibration's.

    Args:
        record: of a format.
        taken: the names of those.
    """
    return {
        f"benchmark_{column}" if column in _MEANT else column: cell
        for column, cell in record.items()
        if column not in taken and isinstance(cell, str | int | float | bool | None)
    }


def _told(cell: Any) -> str:
    return "missing" if cell is None else f"{reprlib.repr(cell)}, a {type(cell).__name__}"
