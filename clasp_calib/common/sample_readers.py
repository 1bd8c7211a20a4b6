"""Formats of other projects: who reads one is an entry point, chosen by a prefix or by a look at the file."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from clasp_calib.common import plugins
from clasp_calib.common.errors import InputError
from clasp_calib.common.given_files import check_regular, regular_file
from clasp_calib.common.hub_datasets import is_saved_dataset
from clasp_calib.common.table_readers import FORMATS

GROUP = "clasp_calib.readers"
"""Entry points of this group are subclasses of `SampleReader`; their names are the prefixes."""
_HEAD = 1 << 16
_DEEPEST = 32
"""Levels of JSON that a look goes down: the path of every level is a text."""
_PREFIXED = re.compile(r"(?P<name>[a-z][a-z0-9_-]*):(?P<text>.+)", re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


@dataclass(frozen=True)
class SampleSource:
    """What a reader is asked to read."""

    text: str
    """What stands behind the prefix: a path, several with ``+`` between, or whatever else the reader takes."""
    split: str | None = None
    """Which split of the source, for readers that have `SampleReader.splits`."""
    image_root: Path | None = None
    """The directory that the user names for pictures; it is one."""

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The paths in the text."""
        whole = Path(self.text)
        return (whole,) if _exists(whole) else tuple(map(Path, self.text.split("+")))

    @cached_property
    def home(self) -> Path:
        """What paths of pictures are relative to: the image root, or the directory that the first path is, or is in."""
        first = self.paths[0]
        return self.image_root or (Path() if not _exists(first) else first if first.is_dir() else first.parent)

    def files(self, *names: str) -> tuple[Path, ...]:
        """As many regular files as names.

        Args:
            names: what each is, for messages, such as ``QUESTIONS.json``.

        Raises:
            InputError: there are more or fewer, or one is no regular file.
        """
        if len(self.paths) != len(names):
            raise InputError(f"{self.text} names {len(self.paths)} files; expected {len(names)}: {'+'.join(names)}")
        for path, name in zip(self.paths, names, strict=True):
            check_regular(path, f"file {name}")
        return self.paths


@dataclass(frozen=True)
class Beginning:
    """A cheap look at a file or a directory."""

    path: Path
    head: bytes = b""
    """The first 64 KiB of a file."""

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the head, the last of which may be cut off."""
        return self.head.decode("utf-8-sig", "replace").splitlines()

    @cached_property
    def first_object(self) -> Mapping[str, Any]:
        """The JSON object in the first line that is not blank; empty if there is none."""
        try:
            found = json.loads(next(line for line in self.lines if line.strip()))
        except (StopIteration, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def keys(self) -> frozenset[str]:
        """The paths of the keys that a JSON file begins with: ``questions``, ``questions[].image_id``."""
        found: set[str] = set()
        inside: list[str] = []
        tokens = _TOKEN.findall("\n".join(self.lines))
        if not tokens or tokens[0] not in "{[":
            return frozenset()
        key = ""
        for token, after in pairwise([*tokens, ""]):
            if len(inside) > _DEEPEST:
                break
            if token in ("{", "["):
                inside.append(f"{key}[]" if token == "[" else key)
                key = inside[-1]
            elif token in ("}", "]"):
                if not inside:
                    break
                inside.pop()
                key = inside[-1] if inside else ""
            elif token == ",":
                key = inside[-1] if inside else ""
            elif after == ":" and token.startswith('"'):
                stem = inside[-1] if inside else ""
                key = f"{stem}.{token[1:-1]}" if stem else token[1:-1]
                found.add(key)
        return frozenset(found)

    @property
    def member_keys(self) -> frozenset[str]:
        """The same without the outermost key, for a file that has rows by name: ``answer`` of ``{"1": {"answer"``."""
        return frozenset(key.partition(".")[2] for key in self.keys)


class SampleReader:
    """Reads one format. A new format is one such class in one file, and an entry point of the group `GROUP`.

    A row is a mapping of columns. Those with a meaning are of the sample table: ``question`` (required), ``image`` (a
    path relative to `SampleSource.home`, or a picture: bytes or PIL) or ``images`` (a list of these), ``answers`` (a
    text or a list of them), ``metric`` (the one that the benchmark uses) and ``id``; ``split`` only if the format means
    ours.
    ``question`` holds what the benchmark asks, with its options and answer format; ``bare_question`` what is asked
    without these, so that a user can map it in its place. All other columns pass through, and may give the classes.

    Errors are InputErrors that name the file, the row (or JSON path) and the column. A row that cannot be read is
    refused, never left out.
    """

    about: ClassVar[str]
    """What it reads, in a few words for messages and lists."""
    splits: ClassVar[bool] = False
    """Whether a source has splits, of which a user may name one."""

    def claims(self, beginning: Beginning) -> bool:
        """Whether a file or directory is of this format, as far as its beginning tells; by default never."""
        return False

    def rows(self, source: SampleSource) -> Iterator[Mapping[str, Any] | pa.Table]:
        """The rows of a source in order, one by one or as tables of some. No more are asked for than needed.

        Raises:
            InputError: the source cannot be read.
        """
        raise NotImplementedError

    def home(self, source: SampleSource) -> Path:
        """What paths of pictures in the rows are relative to."""
        return source.home

    def within(self, source: SampleSource) -> Sequence[Path]:
        """Directories that paths of pictures must lead into, where rows came from elsewhere; by default anywhere."""
        return ()


@dataclass(frozen=True)
class Chosen:
    """The reader of a source."""

    prefix: str
    reader: SampleReader
    text: str
    """The source without its prefix."""


def reader_for(place: Path, columns: Mapping[str, str]) -> Chosen | None:
    """Who reads a place; None if it is a sample table, a directory of Parquet files or a dataset, or nothing known.

    Args:
        place: a path, or a text with a prefix.
        columns: our name -> the source's name, for columns called otherwise.

    Raises:
        InputError: there is no reader of that prefix; several claim a file, or nobody does that is no table.
    """
    text = str(place)
    if (prefixed := _PREFIXED.fullmatch(text)) and not _exists(place):
        return Chosen(name := prefixed["name"], _reader(name, text), prefixed["text"])
    first = next((path for path in SampleSource(text).paths if not _exists(path)), None) if "\0" not in text else place
    if first is not None or is_saved_dataset(SampleSource(text).paths[0]):
        return None
    beginning = _beginning(SampleSource(text).paths[0])
    suffix = beginning.path.suffix.lower()
    ours = suffix == ".jsonl" and columns.get("question", "question") in beginning.first_object
    if ours or suffix in (".parquet", ".csv"):
        return None
    readers = {name: _reader(name, text) for name in prefixes()}
    claimed = [name for name, reader in readers.items() if reader.claims(beginning)]
    if len(claimed) > 1:
        said = " or ".join(f"{name}:{text} ({readers[name].about})" for name in claimed)
        raise InputError(f"{text} may be of {len(claimed)} formats; say which: {said}")
    if not claimed and beginning.path.is_file() and suffix not in FORMATS:
        raise InputError(
            f"{text} ends in {suffix!r}; expected one of {', '.join(FORMATS)}, or a file of a benchmark; its beginning "
            f"does not tell which, so name its format by a prefix, PREFIX:{text} (there are {', '.join(readers)})"
        )
    return Chosen(claimed[0], readers[claimed[0]], text) if claimed else None


def prefixes() -> list[str]:
    """The names of all readers that installed packages bring."""
    return sorted(plugins.brought(GROUP))


def absolute(place: Path) -> str:
    """A place as it can be given from any directory: its paths made absolute, behind its prefix if it has one."""
    prefixed = _PREFIXED.fullmatch(str(place))
    if prefixed and not _exists(place):
        return f"{prefixed['name']}:{absolute(Path(prefixed['text']))}"
    return "+".join(_absolute(path) for path in SampleSource(str(place)).paths)


def _absolute(path: Path) -> str:
    name, *behind = [str(path)] if _exists(path) else str(path).split(":")
    return ":".join([str(Path(name).resolve() if _exists(Path(name)) else name), *behind])


def _reader(name: str, text: str) -> SampleReader:
    if name not in plugins.brought(GROUP):
        raise InputError(
            f"{text}: there is no reader {name!r}; expected a path, or one of the prefixes {', '.join(prefixes())}"
        )
    found = plugins.loaded(GROUP, "reader", name)
    if not (isinstance(found, type) and issubclass(found, SampleReader)):
        raise InputError(
            f"the reader {name!r} of {plugins.package_of(GROUP, name)} is {found!r:.100}; expected a subclass of "
            "clasp_calib.common.sample_readers.SampleReader"
        )
    return found()


def _beginning(path: Path) -> Beginning:
    if path.is_dir():
        return Beginning(path)
    check_regular(path, "sample file")
    try:
        with regular_file(path) as file:
            return Beginning(path, file.read(_HEAD))
    except OSError as error:
        raise InputError(f"cannot read the sample file {path} ({error.strerror}); check the file") from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # A name too long, a directory that may not be looked into, a NUL.
        return False
