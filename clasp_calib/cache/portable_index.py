"""The index of a portable cache: a journal, kept in memory by SQLite.

A network file system can be trusted to append to a file and to rename one, but hardly with SQLite's log and locks. A
line is one change, as `Index.change` takes it; who writes holds the cache's own lock.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clasp_calib.cache.index import Index, IndexEntry, ShardRecord
from clasp_calib.common.errors import CacheError
from clasp_calib.common.journal import Journal, JournalKind

FILE = "index.jsonl"
KIND = JournalKind(
    CacheError,
    mend="remove the cache's directory and run cache-features again",
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
        self.path = root / FILE
        self.writable = writable
        self._lock = threading.Lock()
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

    def _commit(
        self, shards: list[ShardRecord], entries: list[IndexEntry], forget: list[tuple[str, int]], gone: list[int]
    ) -> None:
        line = {
            "shards": [vars(shard) for shard in shards],
            "entries": [{**vars(entry), "checksums": entry.checksums.hex()} for entry in entries],
            "forget": [list(pair) for pair in forget],
            "forget_shards": gone,
        }
        if line := {name: value for name, value in line.items() if value}:
            self._journal.append(line)

    def _begin(self) -> None:
        self._database = self._connect("file::memory:")

    def _apply(self, line: Mapping[str, Any]) -> None:
        if "meta" in line:
            super().initialise(line["meta"])
            return
        super()._commit(
            [ShardRecord(**{**shard, "layers": tuple(shard["layers"])}) for shard in line.get("shards", ())],
            [IndexEntry(**{**e, "checksums": bytes.fromhex(e["checksums"])}) for e in line.get("entries", ())],
            [(key, shard) for key, shard in line.get("forget", ())],
            line.get("forget_shards", []),
        )


def there(root: Path) -> bool:
    """Whether there is a portable cache in ``root``."""
    return (root / FILE).is_file()


def open_index(root: Path) -> Index:
    """The index of the cache in ``root``, of whichever kind, for reading.

    Raises:
        CacheError: there is none, or it cannot be read.
    """
    return JournalIndex(root) if there(root) else Index(root)
