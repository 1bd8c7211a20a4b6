"""Which pictures are the same: by their content, whatever they are called and wherever they lie."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from clasp_calib.common.errors import InputError, PictureError
from clasp_calib.common.media import Media, MemoryPicture, picture_file
from clasp_calib.common.progress import track
from clasp_calib.common.replacing import replaced
from clasp_calib.common.row_blocks import cells_of, column_of
from clasp_calib.common.samples import Sample

_NAMED = 5
_SETTLED = 2_000_000_000
"""Nanoseconds that a file must have rested before its state identifies it: the clocks of some file systems are coarse.
Git takes the same care of its index (https://git-scm.com/docs/racy-git)."""


class _State(NamedTuple):
    """A file as its directory describes it; a changed file has another."""

    path: bytes
    size: int
    modified: int
    changed: int
    inode: int


_known: dict[_State, str] = {}
"""Keys of files that were read before, in this process or, by a file of hints, in another."""


def image_key(picture: Media) -> str:
    """What a picture is known by: hex sha256 of the file's bytes, or of what is in memory.

    Raises:
        PictureError: it cannot be read.
    """
    if isinstance(picture, MemoryPicture):
        return picture.key
    try:
        state = _state(picture)
        if state is not None and (known := _known.get(state)):
            return known
        with picture_file(picture) as file:
            key = hashlib.file_digest(file, "sha256").hexdigest()
            if state is not None and state == _state(picture):
                _known[state] = key
    except OSError as error:
        raise PictureError(picture, error.strerror or str(error)) from error
    return key


def _state(path: Path) -> _State | None:
    """None where the file is too new to be told from one that comes after."""
    try:
        found = path.stat()
    except ValueError:
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _SETTLED:
        return None
    place = os.fsencode(os.path.abspath(path))
    return _State(place, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def identified(pictures: Iterable[Media], hints: Path | None = None) -> tuple[dict[Media, str], dict[Media, str]]:
    """Find out which pictures are the same.

    Args:
        pictures: files that are not there, or are no files, among them.
        hints: a file that remembers keys: what it knows is not read again, and what it did not know is added.

    Returns:
        Picture -> key, in the order of ``pictures``; picture that cannot be read -> why.
    """
    keys: dict[Media, str] = {}
    broken: dict[Media, str] = {}
    every = list(dict.fromkeys(pictures))
    for picture, key, reason in _identities(every, len(every), hints):
        if key is None:
            broken[picture] = reason
        else:
            keys[picture] = key
    return keys, broken


def _identities(pictures: Iterable[Media], total: int, hints: Path | None) -> Iterator[tuple[Media, str | None, str]]:
    """Each picture with its key, or without one and why; see `identified`."""
    if hints is not None:
        _recall(hints)
    before = len(_known)
    for picture in track(pictures, "identifying pictures", total):
        try:
            yield picture, image_key(picture), ""
        except PictureError as error:
            yield picture, None, error.reason
        except InputError as error:
            yield picture, None, str(error)
    if hints is not None and len(_known) > before:
        _remember(hints)


def grouped(samples: Sequence[Sample], hints: Path | None = None) -> Sequence[Sample]:
    """Samples with their `Sample.group`: those that share a picture or video, directly or by others, have the same.

    Args:
        samples: those about nothing stay as they are.
        hints: see `identified`.

    Raises:
        InputError: pictures cannot be read; all are counted and the first are named.
    """
    # By names and numbers, which need less memory than paths: there may be a picture for each of a million samples.
    numbers: dict[str | MemoryPicture, int] = {}
    shown: list[tuple[int, ...]] = []
    for sample in samples:
        of = tuple(numbers.setdefault(_name(one), len(numbers)) for one in sample.media)
        shown.append(shown[-1] if shown and shown[-1] == of else of)
    keys: list[str] = []
    broken: dict[Media, str] = {}
    every = (Path(name) if isinstance(name, str) else name for name in numbers)
    for picture, key, reason in _identities(every, len(numbers), hints):
        if key is None:
            broken[picture] = reason
        keys.append(key or "")
    refuse(broken)
    return _Grouped(samples, _groups(shown, keys))


def _name(picture: Media) -> str | MemoryPicture:
    return str(picture) if isinstance(picture, Path) else picture


class _Grouped(Sequence[Sample]):
    """Samples that get their group when they are asked for: a million of them would need gigabytes."""

    def __init__(self, samples: Sequence[Sample], groups: Sequence[str | None]):
        self._samples, self._groups = samples, groups

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Grouped(self._samples[place], self._groups[place])
        return replace(self._samples[place], group=self._groups[place])

    def __iter__(self) -> Iterator[Sample]:
        for sample, group in zip(self._samples, self._groups, strict=True):
            yield replace(sample, group=group)

    def __len__(self) -> int:
        return len(self._groups)


def _groups(shown: Sequence[tuple[int, ...]], keys: Sequence[str]) -> list[str | None]:
    """The least key of each sample's connected component.

    Args:
        shown: numbers of the pictures of each sample.
        keys: of the pictures, by their numbers.
    """
    parents = {key: key for key in keys}

    def root(key: str) -> str:
        while (parent := parents[key]) != key:
            parents[key] = key = parents[parent]
        return key

    for pictures in shown:
        roots = [root(keys[one]) for one in pictures]
        for each in roots:
            parents[each] = min(roots)
    return [root(keys[pictures[0]]) if pictures else None for pictures in shown]


def refuse(broken: Mapping[Media, object], done: str = "") -> None:
    """Raise one InputError for all broken files, or do nothing when there are none."""
    if broken:
        raise InputError(
            f"{len(broken)} pictures cannot be read ({named_with_reasons(broken)}); "
            f"mend these files or remove their rows, and run again{done}"
        )


def named_with_reasons(broken: Mapping[Media, object]) -> str:
    """The first few of these files in a line, each with what is wrong with it; empty if there are none."""
    named = "; ".join(f"{path}: {reason}" for path, reason in list(broken.items())[:_NAMED])
    return named + (f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else "")


def _recall(hints: Path) -> None:
    import pyarrow.parquet as pq

    # Hints only: what cannot be read, or is not of this form, is found out again.
    with suppress(Exception):
        table = pq.read_table(hints)
        columns = [cells_of(table[name]) for name in (*_State._fields, "key")]
        _known.update((_State(*state), key) for *state, key in zip(*columns, strict=True))


def _remember(hints: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    newest = {state.path: state for state in _known}
    columns = {
        name: column_of(
            (getattr(state, name) for state in newest.values()), pa.binary() if name == "path" else pa.int64()
        )
        for name in _State._fields
    }
    columns["key"] = column_of((_known[state] for state in newest.values()), pa.string())
    with suppress(OSError, InputError), replaced(hints) as partial:
        pq.write_table(pa.table(columns), partial)
