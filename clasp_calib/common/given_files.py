"""Files that a user names: looked at before they are opened, and read no further than they can need."""

import codecs
import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from clasp_calib.common.errors import ClaspError, InputError

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_regular(path: str | os.PathLike[str], what: str = "file", error: type[ClaspError] = InputError) -> int:
    """Refuse what is no regular file, without opening it: a pipe or a device may never end, or never begin.

    Args:
        path: the file.
        what: what it is, for messages.
        error: what is raised.

    Returns:
        Its size in bytes.

    Raises:
        ClaspError: it is missing, a directory, a pipe, a device or a socket, or its path holds a NUL.
    """
    named = os.fspath(path)
    if "\0" in named:
        raise error(f"the path {named!r} of the {what} holds a null character (\\x00), which no file has; mend it")
    try:
        found = os.stat(named)
    except OSError as reason:
        raise error(f"cannot read the {what} {named} ({reason.strerror}); check the path") from reason
    if kind := _other_kind(found.st_mode):
        raise error(f"the {what} {named} is {kind}; give a regular file")
    return found.st_size


@contextmanager
def regular_file(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading. Nothing else is opened, as in `check_regular`.

    Raises:
        OSError: it is no readable regular file.
    """
    try:
        _refuse_other_kinds(os.stat(path))
        # A pipe that has taken the file's place meanwhile must not block either.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file can have this name: {error}") from error
    with open(descriptor, "rb") as file:
        _refuse_other_kinds(os.fstat(descriptor))
        yield file


def _refuse_other_kinds(found: os.stat_result) -> None:
    if kind := _other_kind(found.st_mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL, f"it is {kind}")


def _other_kind(mode: int) -> str | None:
    """What something is that is no regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((name for is_one, name in _KINDS if is_one(mode)), "no file")


def read_given(
    path: str | os.PathLike[str],
    limit: int,
    what: str = "file",
    error: type[ClaspError] = InputError,
    advice: str = "divide it",
) -> bytes:
    """The bytes of a regular file, as many as its size says.

    So a file of ``/proc``, whose size is 0, is empty and does not block.

    Args:
        path: the file.
        limit: most bytes that it may have.
        what: what it is, for messages.
        error: what is raised.
        advice: what to do about a file that is too large.

    Raises:
        ClaspError: see `check_regular`; or it is larger than the limit or than memory, or cannot be read.
    """
    check_regular(path, what, error)
    try:
        with regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise error(f"the {what} {path} has {size} bytes, more than the {limit} that one may have; {advice}")
            return file.read(size) if size else b""
    except OSError as reason:
        raise error(f"cannot read the {what} {path} ({reason.strerror}); check the file") from reason
    except MemoryError as reason:
        raise error(f"the {what} {path} does not fit into memory; divide it") from reason


@contextmanager
def text_lines(given: bytes | Path, limit: int, what: str = "file", newline: str = "\n") -> Iterator[Iterator[str]]:
    """The lines of a text, read as they are asked for, with their ends.

    Args:
        given: a file, or its bytes.
        limit: most bytes that it may have.
        what: what it is, for messages.
        newline: what ends a line, as ``open`` takes it.

    Raises:
        InputError: see `read_given`.
        ValueError: see `decoded`.
    """
    with ExitStack() as held:
        if isinstance(given, bytes):
            file: IO[bytes] = io.BytesIO(given)
        else:
            try:
                file = held.enter_context(regular_file(given))
            except OSError as reason:
                raise InputError(f"cannot read the {what} {given} ({reason.strerror}); check the file") from reason
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise InputError(
                    f"the {what} {given} has {size} bytes, more than the {limit} that one may have; divide it"
                )
            file = file if size else io.BytesIO()
        encoding = _encoding(file.read(4))
        file.seek(0)
        yield _checked(io.TextIOWrapper(file, encoding, newline=newline), given, limit, what)


def _checked(text: io.TextIOWrapper, given: bytes | Path, limit: int, what: str) -> Iterator[str]:
    try:
        for line in text:
            if "\0" in line:
                raise ValueError("a line holds a null byte; save the file as UTF-8 text")
            yield line
    except ValueError:
        decoded(given if isinstance(given, bytes) else read_given(given, limit, what))  # says in which line
        raise


def _encoding(beginning: bytes) -> str:
    return next((name for mark, name in _MARKS if beginning.startswith(mark)), "utf-8")


def decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 where a byte order mark says so.

    Raises:
        ValueError: it is not, with the line; or a line holds a NUL.
    """
    encoding = _encoding(content[:4])
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not {error.encoding.upper()} (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line} holds a null byte; save the file as UTF-8 text")
    return text


def inside(path: Path, home: Path) -> bool:
    """Whether a path, relative to ``home`` unless it is absolute, leads to a place in it, links followed."""
    try:
        return (home / path).resolve().is_relative_to(home.resolve())
    except (OSError, ValueError, RuntimeError):  # A loop of links, a name too long, a NUL.
        return False
