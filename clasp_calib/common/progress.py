"""Progress bars on standard error, so that standard output stays a program's to read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from rich import progress as bars
from rich.console import Console

T = TypeVar("T")
console = Console(stderr=True)


def note(text: str) -> None:
    """Say on standard error what there is to know before long work, such as what it goes on with."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@cache
def note_once(text: str) -> None:
    """`note`, unless this process has said so before."""
    note(text)


@contextmanager
def progress() -> Iterator[bars.Progress]:
    """A rich progress display; silent where standard error is neither a terminal nor a notebook."""
    shown = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    times = (bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*shown, *times, console=console, disable=not (console.is_terminal or console.is_jupyter)) as bar:
        yield bar


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with one bar."""
    with progress() as bar:
        task = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(task)
