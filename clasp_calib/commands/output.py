"""How results are printed: one JSON object for programs, tables for people."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

WIDE = 160
"""Columns of a table that is written to a file or a pipe."""


def say(text: str) -> None:
    """Print one line for people."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def emit(result: Mapping[str, Any]) -> None:
    """Print one JSON object, in ASCII where standard output does not take all letters."""
    everything = (getattr(sys.stdout, "encoding", None) or "utf-8").lower() in ("utf-8", "utf8")
    print(json.dumps(result, indent=2, default=str, ensure_ascii=not everything))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and a table; all columns but the first are flushed right."""
    # Not rich's own title, which is broken where the table ends.
    say(title)
    # Names of classes may look like rich's markup.
    console = Console(markup=False)
    if not console.is_terminal:
        # What is no terminal has no width; rich would take 80 columns.
        console = Console(width=WIDE, markup=False)
    count, lines = len(columns), [columns, *rows]
    table = Table(box=box.SIMPLE_HEAD)
    widths = _widths(lines, console.width)
    # Two columns of padding and a divider or edge beside each column.
    if sum(widths) + 3 * count + 1 > console.width:
        table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        widths = _widths(lines, console.width - (count - 1))
    for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(column, justify="right" if number else "left", width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of the columns: as wide as their cells, or narrower to fit in, but never narrower than a word."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, cells)) for cells in columns]
    words = [max(map(cell_len, " ".join(cells).split()), default=0) for cells in columns]
    while sum(widths) > room and widths != words:
        _, widest = max((width, n) for n, width in enumerate(widths) if width > words[n])
        widths[widest] -= 1
    return widths
