"""Cells of a table that hold pictures, and the texts that stand for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from clasp_calib.common.answer_cells import is_nothing
from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import inside
from clasp_calib.common.media import MemoryPicture, as_media


class _Elsewhere(Exception):  # noqa: N818
    """A path leads where it may not."""


@dataclass
class PictureCells:
    """Pictures of one table, on their way out of it."""

    directory: Path | None
    """Where pictures are written; None keeps them."""
    within: Sequence[Path] = ()
    """Directories that paths must lead into, where the table came from elsewhere; by default anywhere."""
    held: dict[str, MemoryPicture] = field(default_factory=dict)
    """Text -> picture."""
    _written: set[str] = field(default_factory=set)

    def settled(self, table: pa.Table, columns: Iterable[str], home: Path, name: str, first: int = 0) -> pa.Table:
        """The table with texts where it had pictures.

        Args:
            table: a table.
            columns: those that hold pictures, or paths of some; others are left as they are.
            home: what paths are relative to.
            name: what the table is called in messages.
            first: the number of its first row.

        Raises:
            InputError: a picture is none, or a path leads where it may not.
        """
        for column in columns:
            if column in table.column_names:
                kind = table.schema.field(column).type
                inner = kind.value_type if hasattr(kind, "value_type") else kind
                binary = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
                # Paths of a dataset are looked at even where nothing is to be taken out.
                if pa.types.is_struct(inner) or binary or self.within:
                    texts = self.texts(table[column].to_pylist(), home, name, first)
                    table = table.set_column(table.column_names.index(column), column, texts)
        if self.within and "video" in table.column_names:
            self.texts(table["video"].to_pylist(), home, name, first)
        return table

    def texts(self, cells: Sequence[Any], home: Path, name: str, first: int = 0) -> pa.Array:
        """One text a cell, or a list of them; see `settled`."""
        found = [self.settled_cell(cell, home, name, row) for row, cell in enumerate(cells, first)]
        if any(isinstance(cell, list) for cell in found):
            found = [cell if isinstance(cell, list) else [] if cell is None else [cell] for cell in found]
            return pa.array(found, pa.list_(pa.string()))
        return pa.array(found, pa.string())

    def settled_cell(self, cell: Any, home: Path, name: str, row: int) -> Any:
        """The text of one cell, a list of them, or None; see `settled`."""
        try:
            several = isinstance(cell, list | tuple)
            return [self._text(one, home) for one in cell] if several else self._text(cell, home)
        except TypeError as error:
            raise InputError(
                f"{name}: the image of row {row} is a {type(cell).__name__}; expected a path or a picture"
            ) from error
        except _Elsewhere as error:
            raise InputError(
                f"{name}: row {row} names the picture {str(error)!r}, which did not come with it; fetch the "
                "pictures and name their directory with --image-root (in Python: image_root=)"
            ) from error
        except OSError as error:
            raise InputError(f"{name} holds a picture that cannot be read ({error}) in row {row}; remove it") from error

    def _text(self, cell: Any, home: Path) -> str | None:
        if isinstance(cell, Mapping):  # as datasets keeps an image
            content, path = cell.get("bytes"), cell.get("path")
            if (
                not isinstance(content, bytes | None)
                or not isinstance(path, str | None)
                or not {"bytes", "path"} & set(cell)
            ):
                raise TypeError("no picture of the datasets library")
            cell = path if content is None else content
        if is_nothing(cell) or (isinstance(cell, str) and not cell):
            return None
        media = as_media(cell)
        if isinstance(media, MemoryPicture):
            if self.directory is not None:
                written = str(media.write(self.directory))
                self._written.add(written)
                return written
            self.held[str(media)] = media
            return str(media)
        text = str(media)
        known = text in self._written or text in self.held or not self.within
        if not known and not any(inside((home / media).absolute(), root) for root in self.within):
            raise _Elsewhere(text)
        return text
