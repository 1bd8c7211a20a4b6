"""The index of a portable cache: JSON lines that are only ever appended, kept in memory by SQLite.

A network file system can be trusted to append to a file and to rename one, but hardly with SQLite's log and locks. A
line is one change, as `Index.change` takes it; it counts once its end is there.
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clasp_calib.cache.disk import write_exactly, write_failed
from clasp_calib.cache.index import Index, IndexEntry, ShardRecord
from clasp_calib.common.errors import CacheError

FILE = "index.jsonl"


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
        self._refreshing = threading.Lock()
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY, 0o644)
        except OSError as error:
            raise CacheError(f"cannot open the cache's index {self.path} ({error.strerror}); check the path") from error
        self._begin()
        self._refresh()
        if writable:
            os.ftruncate(self._descriptor, self._read)  # a killed writer's last line, of which the end is missing

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Close the journal."""
        super().close()
        self.__del__()

    def version(self) -> int:
        """Bytes of the journal that are known; what another process appended is read first."""
        self._refresh()
        return self._read

    def initialise(self, meta: Mapping[str, str]) -> None:
        """Record ``meta``."""
        self._append({"meta": dict(meta)})
        self._apply({"meta": dict(meta)})

    def change(
        self,
        shards: Iterable[ShardRecord] = (),
        entries: Iterable[IndexEntry] = (),
        forget: Iterable[tuple[str, int]] = (),
        forget_shards: Iterable[int] = (),
    ) -> None:
        """See `Index.change`."""
        line = {
            "shards": [vars(shard) for shard in shards],
            "entries": [{**vars(entry), "checksums": entry.checksums.hex()} for entry in entries],
            "forget": [list(pair) for pair in forget],
            "forget_shards": list(forget_shards),
        }
        line = {name: value for name, value in line.items() if value}
        if line:
            self._append(line)
            self._apply(line)

    def _begin(self) -> None:
        self._database = self._connect("file::memory:")
        self._read = 0

    def _append(self, line: Mapping[str, Any]) -> None:
        content = json.dumps(line).encode() + b"\n"
        try:
            write_exactly(self._descriptor, memoryview(content), self._read)
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._read)
            raise write_failed(error, f"cannot write to the cache's index {self.path}") from error
        self._read += len(content)

    def _refresh(self) -> None:
        """Read what was appended since."""
        with self._refreshing:
            size = os.stat(self.path).st_size
            if size < self._read:  # another journal lies there now
                self._begin()
            if size == self._read or (self.writable and self._read):
                return
            content = os.pread(self._descriptor, size - self._read, self._read)
            whole = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines()):
                try:
                    self._apply(json.loads(line))
                except (ValueError, KeyError, TypeError, CacheError) as error:
                    raise CacheError(
                        f"the cache's index {self.path} is damaged (line {number + 1} after byte {self._read}: "
                        f"{error}); remove {self.path.parent} and run cache-features again"
                    ) from error
            self._read += len(whole)

    def _apply(self, line: Mapping[str, Any]) -> None:
        if "meta" in line:
            super().initialise(line["meta"])
            return
        super().change(
            [ShardRecord(**{**shard, "layers": tuple(shard["layers"])}) for shard in line.get("shards", ())],
            [IndexEntry(**{**e, "checksums": bytes.fromhex(e["checksums"])}) for e in line.get("entries", ())],
            [(key, shard) for key, shard in line.get("forget", ())],
            line.get("forget_shards", ()),
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
