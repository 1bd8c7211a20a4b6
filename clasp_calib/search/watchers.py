"""What a search says while it runs: a live table or lines for people, one JSON object a line for machines."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from threading import Lock
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from clasp_calib.common.progress import console

MINUTE = 60.0
"""Seconds between two lines, where no table can be drawn."""


@dataclass(frozen=True)
class Outline:
    """The search of one class at one budget, in numbers."""

    budget: str
    label: str
    candidates: int
    samples: int
    """To search on."""
    most: int
    """Evaluations that the strategy takes, at most."""

    @property
    def exhaustive(self) -> int:
        """Evaluations that measuring every candidate on every sample would take."""
        return self.candidates * self.samples


@dataclass(frozen=True)
class Progress:
    """Where the search of a class stands behind a round. The gain is over the default, in units of the score."""

    samples: int
    """That any candidate has seen."""
    left: int
    """Candidates that were not rejected."""
    leader: str
    """Of the highest posterior mean."""
    gain: float
    """Of the leader: the posterior mean."""
    low: float
    """Of its 95 % interval."""
    high: float
    worse: float
    """Probability that the leader is worse than the default."""
    evaluations: int


class Watcher:
    """Is told of progress; this one tells nobody."""

    def begin(self, of: Outline, recorded: int) -> None:
        """A class begins; so many scores of its samples were recorded before."""

    def advance(self, of: Outline, evaluations: int, measured: bool = False) -> None:
        """So many evaluations more are known; measured just now or recorded before."""

    def stands(self, of: Outline, standing: Progress) -> None:
        """A round of questions is answered."""

    def chosen(self, of: Outline, summary: Mapping[str, Any]) -> None:
        """A class is done."""

    def shortlisted(self, selectors: Sequence[str]) -> None:
        """The first round chose what is searched beside ``clasp``; classes begin anew."""


class EventLines(Watcher):
    """Writes events as JSON, one a line.

    Args:
        write: takes a line.
    """

    def __init__(self, write: Callable[[str], object]):
        self._write = write

    def begin(self, of: Outline, recorded: int) -> None:
        """``begin``."""
        self._say("begin", of, candidates=of.candidates, samples=of.samples, recorded=recorded)

    def stands(self, of: Outline, standing: Progress) -> None:
        """``round``, with the leader's gain and its interval."""
        told = {"candidates_left": standing.left, **vars(standing), "exhaustive": of.exhaustive}
        del told["left"]
        self._say("round", of, **told)

    def chosen(self, of: Outline, summary: Mapping[str, Any]) -> None:
        """``chosen``."""
        self._say("chosen", of, **summary)

    def shortlisted(self, selectors: Sequence[str]) -> None:
        """``shortlisted``."""
        self._write(json.dumps({"event": "shortlisted", "selectors": list(selectors)}))

    def _say(self, event: str, of: Outline, **more: Any) -> None:
        self._write(json.dumps({"event": event, "budget": of.budget, "class": of.label, **more}))


@dataclass
class _Row:
    of: Outline
    begun: float
    answered: int = 0
    measured: int = 0
    last: Progress | None = None
    chosen: str | None = None


class LiveTable(Watcher):
    """What people see: a table with a row a class, redrawn as scores come, or, in a file, a line now and then."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._lock = Lock()
        self._in_lines, self._said = False, 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it on standard error: the table in a terminal or a notebook that can, lines elsewhere."""
        if console.is_terminal or (console.is_jupyter and find_spec("ipywidgets")):
            with Live(get_renderable=self.table, console=console, refresh_per_second=2):
                yield
            return
        self._in_lines, self._said = True, time.monotonic()
        try:
            yield
        finally:
            self._in_lines = False

    def begin(self, of: Outline, recorded: int) -> None:
        """A row more."""
        with self._lock:
            self._rows[of.budget, of.label] = _Row(of, time.monotonic())

    def advance(self, of: Outline, evaluations: int, measured: bool = False) -> None:
        """Counts for the time left."""
        with self._lock:
            row = self._rows[of.budget, of.label]
            row.answered += evaluations
            row.measured += evaluations if measured else 0
            if self._in_lines and time.monotonic() - self._said >= MINUTE:
                self._say(row)

    def stands(self, of: Outline, standing: Progress) -> None:
        """A new standing."""
        with self._lock:
            self._rows[of.budget, of.label].last = standing

    def chosen(self, of: Outline, summary: Mapping[str, Any]) -> None:
        """The row is done."""
        with self._lock:
            row = self._rows[of.budget, of.label]
            row.chosen = summary["candidate"]
            if row.last:
                row.last = replace(row.last, **{name: summary[name] for name in ("gain", "low", "high", "worse")})
            if self._in_lines:
                self._say(row)

    def exhaustive(self, budget: str, label: str) -> int | None:
        """Evaluations of an exhaustive search; ``None`` for a class without samples."""
        row = self._rows.get((budget, label))
        return None if row is None else row.of.exhaustive

    def table(self) -> Table:
        """The table as it stands."""
        table = Table(
            "budget", "class", "left", "leader", "gain", "P(worse)", "evaluations", "of all", "time left", box=None
        )
        with self._lock:
            for row in self._rows.values():
                table.add_row(*map(escape, (row.of.budget, row.of.label, *_cells(row))))
        return table

    def _say(self, row: "_Row") -> None:
        left, leader, gain, worse, spent, share, time_left = _cells(row)
        parts = [f"{spent} evaluations" + (f" ({share} of all)" if share else "")]
        standing = f" {leader}, gain {gain} points, P(worse) {worse}" if worse else f" {leader}, {gain}"
        if row.chosen is None:
            parts += [f"{left} candidates left"] + ([f"leader{standing}"] if leader else [])
            parts += [f"time left {time_left}"] if time_left else []
        else:
            parts += [f"chosen{standing}"]
        line = f"{time.strftime('%H:%M:%S')} budget {row.of.budget}, {row.of.label}: {', '.join(parts)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()


def _cells(row: _Row) -> list[str]:
    resumed = row.answered - row.measured
    spent = f"{row.answered} ({resumed} resumed)" if resumed else str(row.answered)
    if row.last is None:
        return [str(row.of.candidates), "", "", "", spent, "", ""]
    gain, low, high = (100 * value for value in (row.last.gain, row.last.low, row.last.high))
    told = [f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]", f"{row.last.worse:.0%}"]
    if gain == low == high == 0:
        told = ["is the default", ""]
    done, share = row.chosen is not None, row.answered / row.of.exhaustive
    return [
        "" if done else str(row.last.left),
        row.chosen or row.last.leader,
        *told,
        spent,
        # Refining measures candidates that are not in the space.
        f"{share:.0%}" if share <= 1 else "> 100%",
        "done" if done else _time_left(row),
    ]


def _time_left(row: _Row) -> str:
    """If the strategy takes as much as it may: an upper bound at the speed so far."""
    if not row.measured:
        return ""
    left = max(0, row.of.most - row.answered)
    minutes, seconds = divmod(round(left * (time.monotonic() - row.begun) / row.measured), 60)
    return f"< {minutes}:{seconds:02d}"
