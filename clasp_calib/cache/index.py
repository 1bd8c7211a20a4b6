"""The index: which picture's which layers lie in which shard and slot. SQLite, one transaction a batch.

A picture is in the cache when, and only when, its row is committed here; bytes without a row are free
space. What an index on the disk says is checked before it is believed: it may be damaged, or made to do harm.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from clasp_calib.cache.disk import check_plain
from clasp_calib.cache.feature_options import Durability
from clasp_calib.cache.filesystem import is_local
from clasp_calib.cache.form import READABLE, Form
from clasp_calib.cache.records import IndexEntry, ShardRecord, chunks_of, reason_of
from clasp_calib.common.errors import CacheError

FILE = "index.sqlite"
_FORMAT_3 = (
    "create table meta(name text primary key, value text not null) without rowid",
    "create table shard(id integer primary key autoincrement, file text not null unique,"
    " offset integer not null, scale_offset integer, rows integer not null, layers text not null)",
    "create table entry(key text not null, shard integer not null references shard(id),"
    " row integer not null, tokens integer not null, origin text not null, checksums blob not null,"
    " primary key(key, shard), unique(shard, row)) without rowid",
)
_SINCE = ("alter table shard add column header blob", "alter table shard add column chunks text")
_ENTRIES = "select key, shard, row, tokens, origin, checksums from entry"
_SHARDS = "select id, file, offset, scale_offset, rows, layers, header, chunks from shard"
_PUT_SHARD = (
    "insert into shard values (?, ?, ?, ?, ?, ?, ?, ?) on conflict(id)"
    " do update set header = excluded.header, chunks = excluded.chunks"
)
_PUT = (
    "insert into entry values (?, ?, ?, ?, ?, ?) on conflict(key, shard)"
    " do update set row = excluded.row, tokens = excluded.tokens, origin = excluded.origin,"
    " checksums = excluded.checksums"
)
_LONGEST = 2**28
"""Bytes of the largest value or row that is read; a list of chunks may have millions."""
_PLACE = frozenset(
    {
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
        *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH),
    }
)
"""What SQLite says of the place and the moment; all else it says of the file."""


class Index:
    """An open index. Threads may share it; processes may not."""

    def __init__(self, root: Path, writable: bool = False, durability: Durability = "process"):
        """Open ``root``'s index; a writable one is created when there is none.

        Raises:
            CacheError: there is no index, it cannot be read, or it is something else.
        """
        self._prepare(root / FILE, writable)
        for end in ("", "-wal", "-shm", "-journal"):
            check_plain(self.path.with_name(FILE + end))
        if not writable and not self.path.exists():
            raise CacheError(f"no feature cache at {root}; make one with cache-features, or give its directory")
        with self._errors():
            self._database = self._connect(self._address(writable))
        self._check_tables()
        if writable:
            self._all("pragma journal_mode = wal")
            # A kill loses nothing with `normal` either; after a power cut the checksums tell what did not
            # reach the disk.
            self._all(f"pragma synchronous = {'full' if durability == 'power' else 'normal'}")

    def _prepare(self, path: Path, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self._lock = threading.Lock()
        self._form: Form | None = None
        self._records: dict[int, ShardRecord] = {}

    def close(self) -> None:
        """Close the database; the last one out folds the write-ahead log into it."""
        with self._errors():
            self._database.close()

    def version(self) -> int:
        """A number that changes when another connection commits; far cheaper than to look up a picture."""
        [(version,)] = self._all("pragma data_version")
        return int(version)

    def meta(self) -> dict[str, str]:
        """What the whole cache has in common; empty for a new index."""
        found = dict(self._all("select name, value from meta")) if self._has_meta() else {}
        if not all(isinstance(value, str) for value in found.values()):
            self._damaged("it says things that are no text of the whole cache")
        return found

    def initialise(self, meta: Mapping[str, str]) -> None:
        """Make the tables and record ``meta``, in one transaction."""
        with self._transaction():
            for statement in (*_FORMAT_3, *_SINCE):
                self._database.execute(statement)
            self._database.executemany("insert into meta values (?, ?)", meta.items())

    def upgrade(self, meta: Mapping[str, str], shards: Iterable[ShardRecord]) -> None:
        """Bring the index of an older format to this one, in one transaction.

        Args:
            meta: of the new format.
            shards: those of which more is known now.
        """
        found = list(shards)
        with self._transaction():
            for statement in _SINCE:
                self._database.execute(statement)
            self._upgrade(meta, found)

    def _upgrade(self, meta: Mapping[str, str], shards: list[ShardRecord]) -> None:
        self._database.executemany("update meta set value = ? where name = ?", [(v, name) for name, v in meta.items()])
        self._database.executemany(_PUT_SHARD, map(_row, shards))
        self._records.clear()

    def shards(self) -> dict[int, ShardRecord]:
        """All shards by id.

        Raises:
            CacheError: one is out of bounds.
        """
        recent = any(name == "chunks" for _, name, *_ in self._all("pragma table_info(shard)"))
        rows = self._all(_SHARDS if recent else _SHARDS.replace("header, chunks", "null, null"))
        try:
            found = [_record(*row) for row in rows]
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            self._damaged(reason_of(error))
        self._records = {record.id: record for record in found}
        return dict(self._records)

    def record(self, shard: int) -> ShardRecord:
        """The record of a shard, even of one that another process has just added.

        Raises:
            CacheError: there is none, or it is out of bounds.
        """
        if (known := self._records.get(shard) or self.shards().get(shard)) is None:
            self._damaged(f"there is no shard {shard}")
        return known

    def next_shard(self) -> int:
        """The id that the next shard will get; ids are never given twice."""
        rows = self._all("select seq from sqlite_sequence where name = 'shard'")
        given = [seq for (seq,) in rows if isinstance(seq, int)]
        return max([0, *given, *self.shards()]) + 1

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
        rows = [(e.key, e.shard, e.row, e.tokens, e.origin, e.checksums) for e in entries]
        with self._transaction():
            self._database.executemany(_PUT_SHARD, map(_row, shards))
            self._database.executemany("delete from entry where key = ? and shard = ?", forget)
            self._database.executemany(_PUT, rows)
            for statement in ("delete from entry where shard = ?", "delete from shard where id = ?"):
                self._database.executemany(statement, [(number,) for number in gone])
        self._records.clear()

    def entries(self, key: str) -> list[IndexEntry]:
        """Where a picture's layers are.

        Raises:
            CacheError: one of its entries is out of bounds.
        """
        return self._entries("where key = ? order by shard", key)

    def entries_of(self, shard: int) -> list[IndexEntry]:
        """A shard's entries in the order of their rows; errors as of `entries`."""
        return self._entries("where shard = ? order by row", shard)

    def keys(self) -> list[str]:
        """Every picture that has an entry."""
        found = [key for (key,) in self._all("select distinct key from entry")]
        if not all(isinstance(key, str) for key in found):
            self._damaged("a picture's key is no text")
        return found

    def count(self) -> int:
        """Number of entries."""
        [(count,)] = self._all("select count(*) from entry")
        return int(count)

    def filled_shards(self) -> set[int]:
        """The ids of the shards that hold at least one picture.

        Raises:
            CacheError: there are entries of shards that there are not.
        """
        found = {number for (number,) in self._all("select distinct shard from entry")}
        if strays := found - self.shards().keys():
            self._damaged(f"there are entries of shard {strays.pop()!r:.20}, which there is not")
        return found

    def _entries(self, where: str, value: str | int) -> list[IndexEntry]:
        rows = self._all(f"{_ENTRIES} {where}", value)
        if self._form is None:
            self._form = Form.of(self.path.parent, self.meta())
        try:
            found = [IndexEntry(*row) for row in rows]
            return [entry.inside(self.record(entry.shard), self._form) for entry in found]
        except (ValueError, TypeError) as error:
            self._damaged(reason_of(error))

    def _has_meta(self) -> bool:
        return bool(self._all("select 1 from sqlite_master where name = 'meta'"))

    def _check_tables(self) -> None:
        """Make sure that nothing but our own tables is there: no view or trigger that would run when they are used."""
        found = {_plain(sql) for (sql,) in self._all("select sql from sqlite_master where sql is not null")}
        meta, shard, entry = map(_plain, _FORMAT_3)
        recent = shard.removesuffix(")") + ",headerblob,chunkstext)"
        known = [set(), *({meta, of, entry, "createtablesqlite_sequence(name,seq)"} for of in (shard, recent))]
        if found not in known and (not self._has_meta() or self.meta().get("format") in READABLE):
            self._damaged("it has other tables than a cache's index")

    def _all(self, statement: str, *values: str | int) -> list[Any]:
        with self._errors():
            return self._database.execute(statement, values).fetchall()

    def _connect(self, address: str) -> sqlite3.Connection:
        found = sqlite3.connect(address, uri=True, isolation_level=None, timeout=30, check_same_thread=False)
        found.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        return found

    def _address(self, writable: bool) -> str:
        place = self.path.absolute().as_uri()
        if writable:
            return f"{place}?mode=rwc"
        # A write-ahead database needs a writable directory even to be read, unless no log is left and SQLite
        # is told that nothing changes: so a finished cache can be read from a read-only disk, and over a network.
        still = not self.path.with_name(FILE + "-wal").exists()
        finished = still and (not os.access(self.path.parent, os.W_OK) or not is_local(self.path.parent))
        return f"{place}?mode=ro&immutable=1" if finished else f"{place}?mode=ro"

    def _damaged(self, reason: str) -> NoReturn:
        raise CacheError(
            f"the cache's index {self.path} is damaged ({reason}); put a copy of it back, or use another directory and "
            "run cache-features again"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PLACE:
                    raise CacheError(
                        f"cannot use the cache's index {self.path} ({error}); check that the disk has room "
                        "and that you may read and write there, and run again: what is cached so far stays"
                    ) from error
                self._damaged(str(error))
            except (OverflowError, UnicodeError) as error:
                self._damaged(str(error))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._database.execute("begin immediate")
            with self._database:
                yield


def _row(shard: ShardRecord) -> tuple[Any, ...]:
    chunks = None if shard.chunks is None else json.dumps(shard.chunks)
    layers = json.dumps(shard.layers)
    return shard.id, shard.file, shard.offset, shard.scale_offset, shard.rows, layers, shard.header, chunks


def _record(number: Any, file: Any, offset: Any, scale_offset: Any, rows: Any, *more: Any) -> ShardRecord:
    layers, header, chunks = more
    of = json.loads(layers)
    found = None if chunks is None else chunks_of(json.loads(chunks))
    return ShardRecord(
        number, file, offset, scale_offset, rows, tuple(of) if isinstance(of, list) else of, header, found
    )


def _plain(sql: Any) -> str:
    return "".join(str(sql).casefold().split())
