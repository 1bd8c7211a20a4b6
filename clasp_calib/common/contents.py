"""Which pictures are the same: by their content, whatever they are called and wherever they lie."""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from clasp_calib.common.errors import InputError, PictureError
from clasp_calib.common.media import Media, MemoryPicture, picture_file
from clasp_calib.common.progress import track
from clasp_calib.common.replacing import replaced
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
    every = list(dict.fromkeys(pictures))
    if hints is not None:
        _recall(hints)
    before = len(_known)
    keys: dict[Media, str] = {}
    broken: dict[Media, str] = {}
    for picture in track(every, "identifying pictures", len(every)):
        try:
            keys[picture] = image_key(picture)
        except PictureError as error:
            broken[picture] = error.reason
        except InputError as error:
            broken[picture] = str(error)
    if hints is not None and len(_known) > before:
        _remember(hints)
    return keys, broken


def grouped(samples: Sequence[Sample], hints: Path | None = None) -> list[Sample]:
    """Samples with their `Sample.group`: those that share a picture or video, directly or by others, have the same.

    Args:
        samples: those about nothing stay as they are.
        hints: see `identified`.

    Raises:
        InputError: pictures cannot be read; all are counted and the first are named.
    """
    keys, broken = identified((one for sample in samples for one in sample.media), hints)
    refuse(broken)
    return [replace(s, group=group) for s, group in zip(samples, _groups(samples, keys), strict=True)]


def _groups(samples: Sequence[Sample], keys: Mapping[Media, str]) -> list[str | None]:
    """The least key of each sample's connected component."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = key = parents[parent]
        return key

    for sample in samples:
        roots = [root(keys[one]) for one in sample.media]
        for each in roots:
            parents[each] = min(roots)
    return [root(keys[sample.media[0]]) if sample.media else None for sample in samples]


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
        columns = pq.read_table(hints).to_pydict()
        states = map(_State, *(columns[name] for name in _State._fields))
        _known.update(zip(states, columns["key"], strict=True))


def _remember(hints: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    newest = {state.path: (*state, key) for state, key in _known.items()}
    columns = dict(zip((*_State._fields, "key"), map(list, zip(*newest.values(), strict=True)), strict=True))
    with suppress(OSError, InputError), replaced(hints) as partial:
        pq.write_table(pa.table(columns), partial)
