"""Giving damaged inputs to one entry point after the other, and telling what must not happen from what may.

A case may be taken or be refused with a `ClaspError`. It must not raise anything else, end the process, take longer
than `SECONDS` or more than `MEMORY`, or touch a file outside its directory. A case is a function of the target's name
and of its number, so that a finding can be had again: ``python -m fuzz TARGET --first NUMBER --cases 1``.
"""

import contextlib
import faulthandler
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clasp_calib.common.errors import ClaspError

SECONDS = 20
MEMORY = 2 << 30
"""Bytes of address space beyond what the process has when it begins."""
BATCH = 1000
"""Cases that one process takes: what leaks, leaks so far."""
VICTIM = "a file of somebody else"
Mutation = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """An entry point, and healthy inputs of it.

    ``seed`` fills a directory with a healthy input; ``attempt`` is given such a directory, in which one file has been
    changed by one of ``mutations``; ``files`` are patterns of those that may be.
    """

    name: str
    seed: Callable[[Path], None]
    attempt: Callable[[Path], object]
    mutations: tuple[Mutation, ...]
    files: tuple[str, ...] = ("*",)


@dataclass
class Outcome:
    """How many cases were taken and refused, and what must not have happened, by case number."""

    taken: int = 0
    refused: int = 0
    findings: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        """All that ran."""
        return self.taken + self.refused + len(self.findings)


def fuzz(target: Target, cases: int, first: int = 0, seconds: float = float("inf")) -> Outcome:
    """Run cases ``first``, ``first + 1``, ..., in processes of their own, until there are enough or the time is up."""
    outcome, began = Outcome(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        seeds = Path(place) / "seed"
        seeds.mkdir()
        target.seed(seeds)
        number = first
        while number < first + cases and time.monotonic() - began < seconds:
            number = _batch(target, seeds, range(number, min(number + BATCH, first + cases)), outcome, began + seconds)
    outcome.seconds = time.monotonic() - began
    return outcome


def _batch(target: Target, seeds: Path, numbers: range, outcome: Outcome, until: float) -> int:
    """Run some cases in one child; the number to go on with, which is behind that of a case that ended it."""
    # The child notes what it is at: number of the case, when it began, and how the ones before ended.
    notes = mmap.mmap(-1, 4096)
    told_by, told_to = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(told_by)
        _child(target, seeds, numbers, notes, told_to, until)
    os.close(told_to)
    ended = ""
    with os.fdopen(told_by, "rb") as told:
        os.set_blocking(told_by, False)
        said = b""
        while True:
            said += told.read() or b""
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                if status:
                    ended = f"ended the process, with {os.waitstatus_to_exitcode(status)}"
                break
            if time.monotonic() - _noted(notes)[1] > SECONDS:
                ended = f"was not done in {SECONDS} s"
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.02)
        said += told.read() or b""
    at, _, taken, refused = _noted(notes)
    outcome.taken += taken
    outcome.refused += refused
    for line in said.decode(errors="replace").splitlines():
        number, _, what = line.partition(" ")
        outcome.findings[int(number)] = what
    if ended:
        outcome.findings[at] = ended
    return at + 1


def _noted(notes: mmap.mmap) -> tuple[int, float, int, int]:
    at, began, taken, refused = struct.unpack_from("<qdqq", notes)
    return at, began or time.monotonic(), taken, refused


def _child(target: Target, seeds: Path, numbers: range, notes: mmap.mmap, told: int, until: float) -> None:
    code = 1
    with contextlib.suppress(BaseException):
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        counts: Counter[str] = Counter()
        for number in numbers:
            struct.pack_into("<qdqq", notes, 0, number, time.monotonic(), counts["taken"], counts["refused"])
            what = case(target, seeds, number)
            counts[what] += 1
            if what not in ("taken", "refused"):
                os.write(told, f"{number} {what}\n".encode())
            struct.pack_into("<qdqq", notes, 0, number, time.monotonic(), counts["taken"], counts["refused"])
            if time.monotonic() > until:
                break
        code = 0
    os._exit(code)


def case(target: Target, seeds: Path, number: int) -> str:
    """Run one case in this process: ``taken``, ``refused``, or what must not have happened."""
    rng = random.Random(f"{target.name}/{number}")
    with tempfile.TemporaryDirectory(prefix="case-") as place:
        home = Path(place)
        inside = home / "outer" / "inside"
        shutil.copytree(seeds, inside, symlinks=True)
        outside = {home / "victim": VICTIM, home / "outer" / "victim": VICTIM}
        for path, text in outside.items():
            path.write_text(text)
        files = sorted({path for pattern in target.files for path in inside.rglob(pattern) if path.is_file()})
        changed = rng.choice(files)
        changed.write_bytes(rng.choice(target.mutations)(changed.read_bytes(), rng))
        try:
            target.attempt(inside)
            what = "taken"
        except ClaspError:
            what = "refused"
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            what = (
                f"{changed.name}: {type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {str(error)[:200]!r}"
            )
        return _touched(home, outside) or what


def _touched(home: Path, outside: Mapping[Path, str]) -> str:
    for path, text in outside.items():
        if not path.exists() or path.read_text() != text:
            return f"touched {path.relative_to(home)}, which is outside"
    new = {path.relative_to(home).as_posix() for path in (*home.iterdir(), *(home / "outer").iterdir())}
    new -= {"victim", "outer", "outer/victim", "outer/inside"}
    return f"left {sorted(new)} outside" if new else ""
