"""The append-only journal: JSON lines behind checksums, one writer at a time, as many readers as like.

A line is a checksum (xxh64 of what follows the space, hex), a space, and a JSON value:

    7d1f5c03a9b2e481 {"sample":"17","score":[1.0,0.0]}

It counts once its end is there. What a kill tore off is passed over by readers and dropped by the next writer.
"""

import errno
import fcntl
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Self

import xxhash

from clasp_calib.common.errors import ClaspError
from clasp_calib.common.given_files import check_regular
from clasp_calib.common.strict_json import named_once

LONGEST = 2**28
"""Bytes of a line; a longer one is damage."""
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What a line raises that does not hold what it should."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OtherVersionError(Exception):
    """Raised by `Journal`'s ``take`` for a line that is whole, and was written by a version that this one cannot read.

    Args:
        reason: what is in it.
    """


def _is_plain(line: bytes) -> bool:
    """Whether a line is JSON without a checksum."""
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class JournalKind:
    """What differs between journals.

    Attributes:
        error: what is raised.
        mend: what to do about a damaged line.
        elsewhere: what to do where the journal cannot be opened or written to.
        plain: lines without a checksum are read where they stand before all others, as earlier versions wrote them.
        locked: the kernel's lock keeps other writers out; without it the caller does.
        synced: a line that was written survives a power cut, not only a kill.
    """

    error: type[ClaspError]
    mend: str = "remove the line, or the file"
    elsewhere: str = "give another place"
    plain: bool = False
    locked: bool = True
    synced: bool = False


def number(value: Any) -> float:
    """A number of a line, for `Journal`'s ``take``.

    Raises:
        TypeError: it is none, or NaN.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise TypeError(f"{value!r:.40} is no number")
    return float(value)


class Journal:
    """An open journal. Threads may share it.

    Args:
        path: of the file, which a writer makes if it is missing; ``None`` is a journal that nobody keeps.
        take: is given the value of every line, in order: of those on disk at once, of later ones as they are appended
            or found by `refresh`. May raise ValueError, KeyError, TypeError or the kind's error for one that it cannot
            take.
        kind: how errors are told, and what earlier versions wrote.
        writable: append to it, and keep others from doing so.
        head: the first line, which `take` is not given: a new journal gets it, another must begin with it.
        restart: called before a reader reads all again, because the file was replaced or cut.

    Raises:
        ClaspError: of the kind: the file cannot be opened or written to, another process is writing to it, a line is
            damaged, or it begins with another head.
    """

    def __init__(
        self,
        path: Path | None,
        take: Callable[[Any], None],
        kind: JournalKind,
        *,
        writable: bool = True,
        head: Any = None,
        restart: Callable[[], None] = lambda: None,
    ):
        self.path, self._take, self._kind, self._head, self._restart = path, take, kind, head, restart
        self._writing, self._reading = Lock(), Lock()
        self._end = self._lines = 0
        self._checked = False
        self._inode = self._file = -1
        if path is None:
            return
        if path.exists():
            check_regular(path, "journal", kind.error)
        try:
            if writable:
                self._open(path)
            self._read(path)
            if writable:
                os.ftruncate(self._file, self._end)
                if head is not None and not self._lines:
                    self._write(head)
        except OSError as error:
            self.close()
            raise self._failed("use", error) from error
        except ClaspError:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes that are read and written so far."""
        return self._end

    def append(self, entry: Any) -> None:
        """Write a line, which is then safe from a kill, and take it.

        Raises:
            ClaspError: of the kind, if it cannot be written; the journal is then as before.
        """
        with self._writing:
            if self.path is not None:
                self._write(entry)
            self._take(entry)

    def refresh(self) -> None:
        """Take what another process has appended.

        Raises:
            ClaspError: of the kind, as on opening.
        """
        if self.path is not None and self._file < 0:
            try:
                # Opening a file asks a network for it; looking at it, mostly, does not.
                found = os.stat(self.path)
                if (found.st_ino, found.st_size) != (self._inode, self._end):
                    self._read(self.path)
            except OSError as error:
                raise self._failed("read", error) from error

    def close(self) -> None:
        """Let another process write."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if self._kind.locked:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._kind.error(
                    f"another process is writing to {path}; wait for it, or {self._kind.elsewhere}"
                ) from None

    def _read(self, path: Path) -> None:
        with self._reading, path.open("rb") as file:
            found = os.fstat(file.fileno())
            if self._inode >= 0 and (found.st_ino != self._inode or found.st_size < self._end):
                self._end = self._lines = 0
                self._checked = False
                self._restart()
            self._inode = found.st_ino
            file.seek(self._end)
            while (line := file.readline(LONGEST)).endswith(b"\n") or len(line) == LONGEST:
                self._lines += 1
                first = self._lines == 1 and self._head is not None
                try:
                    if len(line) == LONGEST:
                        raise ValueError(f"it is longer than {LONGEST} bytes")
                    entry = self._entry(line[:-1])
                    if not first:
                        self._take(entry)
                except OtherVersionError as error:
                    raise self._kind.error(
                        f"another version of clasp-calib wrote the journal {path} ({error}); "
                        f"{self._kind.elsewhere}, or remove the file to begin anew"
                    ) from error
                except (*_DAMAGE, self._kind.error) as error:
                    raise self._kind.error(
                        f"line {self._lines} of the journal {path} is damaged ({error}); {self._kind.mend}"
                    ) from error
                if first and entry != json.loads(json.dumps(self._head)):
                    raise self._kind.error(f"{path} was begun for something else; remove it")
                self._end += len(line)

    def _entry(self, line: bytes) -> Any:
        if self._kind.plain and not self._checked and line.startswith(b"{"):
            return json.loads(line, object_pairs_hook=named_once)
        if self._lines == 1 and _is_plain(line):
            raise OtherVersionError("its lines have no checksums")
        checksum, _, text = line.partition(b" ")
        if checksum != xxhash.xxh64_hexdigest(text).encode():
            raise ValueError("its checksum does not fit")
        self._checked = True
        return json.loads(text)

    def _write(self, entry: Any) -> None:
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        line = b"%s %s\n" % (xxhash.xxh64_hexdigest(text).encode(), text)
        try:
            done = 0
            # A call may write fewer bytes than it was given, for instance on a nearly full disk.
            while done < len(line):
                done += os.pwrite(self._file, line[done:], self._end + done)
            if self._kind.synced:
                os.fsync(self._file)
            self._end += len(line)
        except BaseException as error:
            # An interrupt as well: half a line would stick to the next one.
            os.ftruncate(self._file, self._end)
            if isinstance(error, OSError):
                raise self._failed("write to", error) from error
            raise
        self._lines += 1

    def _failed(self, what: str, error: OSError) -> ClaspError:
        advice = "make room or " if error.errno in _FULL else ""
        reason = error.strerror or error
        return self._kind.error(f"cannot {what} {self.path} ({reason}); {advice}{self._kind.elsewhere}")
