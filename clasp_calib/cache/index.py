"""The index: which picture's which layers lie in which shard and slot. SQLite, one transaction a batch.

A picture is in the cache when, and only when, its row is committed here; bytes without a row are free
space.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clasp_calib.cache.feature_options import Durability
from clasp_calib.cache.filesystem import maps_safely
from clasp_calib.common.errors import CacheError

FILE = "index.sqlite"
ABSENT = bytes(8)
"""Stands for the checksum of a slab that was dropped. Of 2^64 slabs one has it in earnest, and is encoded again."""
_SCHEMA = (
    "create table meta(name text primary key, value text not null) without rowid",
    "create table shard(id integer primary key autoincrement, file text not null unique,"
    " offset integer not null, scale_offset integer, rows integer not null, layers text not null)",
    "create table entry(key text not null, shard integer not null references shard(id),"
    " row integer not null, tokens integer not null, origin text not null, checksums blob not null,"
    " primary key(key, shard), unique(shard, row)) without rowid",
)
_ENTRIES = "select key, shard, row, tokens, origin, checksums from entry"
_PUT = (
    "insert into entry values (?, ?, ?, ?, ?, ?) on conflict(key, shard)"
    " do update set row = excluded.row, tokens = excluded.tokens, origin = excluded.origin,"
    " checksums = excluded.checksums"
)


@dataclass(frozen=True)
class ShardRecord:
    """What the index knows of a shard."""

    id: int
    file: str
    offset: int
    """Byte at which the values begin."""
    scale_offset: int | None
    """Byte at which the scales begin, None where there are none."""
    rows: int
    """Tokens that it has room for, in all layers together."""
    layers: tuple[int, ...]


@dataclass(frozen=True)
class IndexEntry:
    """One picture in one shard."""

    key: str
    shard: int
    row: int
    """Where its first slab begins, counted in tokens."""
    tokens: int
    origin: str
    """What `clasp_calib.cache.origin.Origin` says of the tokens, as JSON."""
    checksums: bytes
    """8 bytes a layer of the shard, in its order; `ABSENT` for one that is not there."""

    def checksum(self, position: int) -> bytes:
        """The checksum of the layer at ``position``."""
        return self.checksums[8 * position : 8 * position + 8]

    def has(self, position: int) -> bool:
        """Whether the layer at ``position`` is there."""
        return self.checksum(position) != ABSENT

    def held(self, layers: Sequence[int]) -> dict[int, int]:
        """Layer -> position of the slabs that are there, of a shard with these layers."""
        return {layer: position for position, layer in enumerate(layers) if self.has(position)}

    def with_checksums(self, changed: Mapping[int, bytes]) -> "IndexEntry":
        """The same with other checksums at some positions."""
        found = [changed.get(at, self.checksum(at)) for at in range(len(self.checksums) // 8)]
        return replace(self, checksums=b"".join(found))


class Index:
    """An open index. Threads may share it; processes may not."""

    def __init__(self, root: Path, writable: bool = False, durability: Durability = "process"):
        """Open ``root``'s index; a writable one is created when there is none.

        Raises:
            CacheError: there is no index, or it cannot be read.
        """
        self.path = root / FILE
        self.writable = writable
        self._lock = threading.Lock()
        if not writable and not self.path.is_file():
            raise CacheError(f"no feature cache at {root}; make one with cache-features, or give its directory")
        with self._errors():
            self._database = self._connect(self._address(writable))
            if writable:
                self._database.execute("pragma journal_mode = wal")
                # A kill loses nothing with `normal` either; after a power cut the checksums tell what did not
                # reach the disk.
                self._database.execute(f"pragma synchronous = {'full' if durability == 'power' else 'normal'}")

    def close(self) -> None:
        """Close the database; the last one out folds the write-ahead log into it."""
        with self._errors():
            self._database.close()

    def version(self) -> int:
        """A number that changes when another connection commits; far cheaper than to look up a picture."""
        with self._lock:
            return int(self._database.execute("pragma data_version").fetchone()[0])

    def meta(self) -> dict[str, str]:
        """What the whole cache has in common; empty for a new index."""
        there = self._all("select 1 from sqlite_master where name = 'meta'")
        return dict(self._all("select name, value from meta")) if there else {}

    def initialise(self, meta: Mapping[str, str]) -> None:
        """Make the tables and record ``meta``, in one transaction."""
        with self._transaction():
            for statement in _SCHEMA:
                self._database.execute(statement)
            self._database.executemany("insert into meta values (?, ?)", meta.items())

    def shards(self) -> dict[int, ShardRecord]:
        """All shards by id."""
        rows = self._all("select id, file, offset, scale_offset, rows, layers from shard")
        return {
            number: ShardRecord(number, file, offset, scales, room, tuple(json.loads(layers)))
            for number, file, offset, scales, room, layers in rows
        }

    def next_shard(self) -> int:
        """The id that the next shard will get; ids are never given twice."""
        rows = self._all("select seq from sqlite_sequence where name = 'shard'")
        return int(rows[0][0]) + 1 if rows else 1

    def change(
        self,
        shards: Iterable[ShardRecord] = (),
        entries: Iterable[IndexEntry] = (),
        forget: Iterable[tuple[str, int]] = (),
        forget_shards: Iterable[int] = (),
    ) -> None:
        """Change what is known, all of it or nothing.

        Args:
            shards: that are new.
            entries: whose bytes are written; one that is known in the same shard is replaced.
            forget: entries, by key and shard; their rows are free again.
            forget_shards: with every entry in them.
        """
        self._commit(list(shards), list(entries), list(forget), list(forget_shards))

    def _commit(
        self, shards: list[ShardRecord], entries: list[IndexEntry], forget: list[tuple[str, int]], gone: list[int]
    ) -> None:
        new = [(s.id, s.file, s.offset, s.scale_offset, s.rows, json.dumps(s.layers)) for s in shards]
        rows = [(e.key, e.shard, e.row, e.tokens, e.origin, e.checksums) for e in entries]
        with self._transaction():
            self._database.executemany("insert into shard values (?, ?, ?, ?, ?, ?)", new)
            self._database.executemany("delete from entry where key = ? and shard = ?", forget)
            self._database.executemany(_PUT, rows)
            for statement in ("delete from entry where shard = ?", "delete from shard where id = ?"):
                self._database.executemany(statement, [(number,) for number in gone])

    def entries(self, key: str) -> list[IndexEntry]:
        """Where a picture's layers are."""
        return [IndexEntry(*row) for row in self._all(f"{_ENTRIES} where key = ? order by shard", key)]

    def entries_of(self, shard: int) -> list[IndexEntry]:
        """A shard's entries in the order of their rows."""
        return [IndexEntry(*row) for row in self._all(f"{_ENTRIES} where shard = ? order by row", shard)]

    def keys(self) -> list[str]:
        """Every picture that has an entry."""
        return [key for (key,) in self._all("select distinct key from entry")]

    def count(self) -> int:
        """Number of entries."""
        [(count,)] = self._all("select count(*) from entry")
        return int(count)

    def filled_shards(self) -> set[int]:
        """The ids of the shards that hold at least one picture."""
        return {number for (number,) in self._all("select distinct shard from entry")}

    def _all(self, statement: str, *values: str | int) -> list[Any]:
        with self._errors():
            return self._database.execute(statement, values).fetchall()

    def _connect(self, address: str) -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, isolation_level=None, timeout=30, check_same_thread=False)

    def _address(self, writable: bool) -> str:
        place = self.path.absolute().as_uri()
        if writable:
            return f"{place}?mode=rwc"
        # A write-ahead database needs a writable directory even to be read, unless no log is left and SQLite
        # is told that nothing changes: so a finished cache can be read from a read-only disk, and over a network.
        still = not self.path.with_name(FILE + "-wal").exists()
        finished = still and (not os.access(self.path.parent, os.W_OK) or not maps_safely(self.path.parent))
        return f"{place}?mode=ro&immutable=1" if finished else f"{place}?mode=ro"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise CacheError(
                    f"cannot use the cache's index {self.path} ({error}); check that the disk has room "
                    "and that you may read and write there, and run again: what is cached so far stays"
                ) from error
            except sqlite3.DatabaseError as error:
                raise CacheError(
                    f"the cache's index {self.path} is damaged ({error}); "
                    f"remove {self.path.parent} and run cache-features again"
                ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._database.execute("begin immediate")
            with self._database:
                yield
