"""The index of a portable cache: a journal, kept in memory by SQLite.

A network file system can be trusted to append to a file and to rename one, but hardly with SQLite's log and locks. A
line is one change, as `Index.change` takes it; who writes holds the cache's own lock.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clasp_calib.cache.disk import check_plain
from clasp_calib.cache.index import Index
from clasp_calib.cache.records import IndexEntry, ShardRecord, chunks_of, reason_of
from clasp_calib.common.errors import CacheError
from clasp_calib.common.journal import Journal, JournalKind

FILE = "index.jsonl"
KIND = JournalKind(
    CacheError,
    mend="put a copy of it back, or use another directory and run cache-features again",
    elsewhere="choose another place and run again: what is cached so far stays",
    plain=True,
    locked=False,
    synced=True,
)


class JournalIndex(Index):
    """`Index` of a portable cache."""

    def __init__(self, root: Path, writable: bool = False):
        """Open ``root``'s journal; a writable one is created when there is none.

        Raises:
            CacheError: there is no journal, or it cannot be read.
        """
        self._prepare(root / FILE, writable)
        check_plain(self.path)
        self._begin()
        self._journal = Journal(self.path, self._apply, KIND, writable=writable, restart=self._begin)

    def close(self) -> None:
        """Close the journal."""
        super().close()
        self._journal.close()

    def version(self) -> int:
        """Bytes of the journal that are known; what another process appended is read first."""
        self._journal.refresh()
        return self._journal.size

    def initialise(self, meta: Mapping[str, str]) -> None:
        """Record ``meta``."""
        self._journal.append({"meta": dict(meta)})

    def upgrade(self, meta: Mapping[str, str], shards: Iterable[ShardRecord]) -> None:
        """See `Index`."""
        self._journal.append({"meta": dict(meta), "shards": [_line(shard) for shard in shards]})

    def _commit(
        self, shards: list[ShardRecord], entries: list[IndexEntry], forget: list[tuple[str, int]], gone: list[int]
    ) -> None:
        line = {
            "shards": [_line(shard) for shard in shards],
            "entries": [_line(entry) for entry in entries],
            "forget": [list(pair) for pair in forget],
            "forget_shards": gone,
        }
        if line := {name: value for name, value in line.items() if value}:
            self._journal.append(line)

    def _begin(self) -> None:
        self._database = self._connect("file::memory:")
        self._records.clear()

    def _apply(self, line: Mapping[str, Any]) -> None:
        try:
            shards = [ShardRecord(**_taken(shard)) for shard in line.get("shards", ())]
            entries = [IndexEntry(**_taken(entry)) for entry in line.get("entries", ())]
        except (ValueError, RecursionError) as error:
            raise ValueError(reason_of(error)) from error
        if "meta" in line and (line.keys() > {"meta", "shards"} or not all(map(_is_text, line["meta"].values()))):
            raise ValueError("what it says of all pictures stands with something else, or is no text")
        if "meta" not in line:
            forget = [(key, shard) for key, shard in line.get("forget", ())]
            super()._commit(shards, entries, forget, line.get("forget_shards", []))
        elif self.meta():
            with self._transaction():
                self._upgrade(line["meta"], shards)
        else:
            super().initialise(line["meta"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _line(known: ShardRecord | IndexEntry) -> dict[str, Any]:
    """As JSON; what is not there is left out."""
    bits = {name: value.hex() for name, value in vars(known).items() if isinstance(value, bytes)}
    return {
        name: value for name, value in {**vars(known), **bits}.items() if value is not None or name == "scale_offset"
    }


def _taken(line: Mapping[str, Any]) -> dict[str, Any]:
    """What `_line` made, with the types that JSON does not know."""
    makes: dict[str, Callable[[Any], Any]] = {
        "header": bytes.fromhex,
        "checksums": bytes.fromhex,
        "layers": tuple,
        "chunks": chunks_of,
    }
    return {name: makes[name](value) if name in makes else value for name, value in line.items()}


def there(root: Path) -> bool:
    """Whether there is a portable cache in ``root``."""
    return os.path.lexists(root / FILE)


def open_index(root: Path) -> Index:
    """The index of the cache in ``root``, of whichever kind, for reading.

    Raises:
        CacheError: there is none, or it cannot be read.
    """
    return JournalIndex(root) if there(root) else Index(root)
