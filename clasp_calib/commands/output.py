"""How results are printed: one JSON object for programs, tables for people."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDE = 160
"""Columns of a table that is written to a file or a pipe."""


def say(text: str) -> None:
    """Print one line for people."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def emit(result: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(result, indent=2, default=str, ensure_ascii=False))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and a table; all columns but the first are flushed right."""
    # Not rich's own title, which is broken where the table ends.
    say(title)
    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    # What is no terminal has no width; rich would take 80 columns.
    (console if console.is_terminal else Console(width=WIDE)).print(table)
