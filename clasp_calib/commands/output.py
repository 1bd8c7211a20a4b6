"""How results are printed: one JSON object for programs, tables for people."""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def say(text: str) -> None:
    """Print one line for people."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def plot_path(path: Path) -> Path | None:
    """``path``, or ``None`` where no plot can be drawn; says so on stderr. Ask before the work, not after it."""
    if find_spec("matplotlib"):
        return path
    print("going on without plots, which need matplotlib: pip install 'clasp-calib[plots]'", file=sys.stderr)
    return None


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
    Console(width=max(112, Console().width)).print(table)
