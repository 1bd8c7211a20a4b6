"""What `search` and `artifact show` print on how sure the choices are."""

from collections.abc import Sequence

from clasp_calib.artifacts.manifest import BudgetEntry
from clasp_calib.artifacts.sureness import LEGEND, SURE_COLUMNS, advice, sure_rows
from clasp_calib.commands.output import say, show


def show_sureness(entry: BudgetEntry, labels: Sequence[str]) -> None:
    """Print a row for each of the classes with a verdict, and what to do; nothing of an artifact of format 1."""
    if rows := sure_rows(entry, labels):
        show(f"budget {entry.name}: how sure", SURE_COLUMNS, rows)
        for line in advice(entry, labels):
            say(line)


def say_legend() -> None:
    """Print what the columns mean."""
    for line in LEGEND:
        say(line)
