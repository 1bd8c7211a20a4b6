"""What one process has open of a store: the index, and the shards that it read last."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clasp_calib.cache.disk import checksums
from clasp_calib.cache.filesystem import maps_safely
from clasp_calib.cache.form import Form
from clasp_calib.cache.hdf5 import described
from clasp_calib.cache.index import Index, IndexEntry, ShardRecord
from clasp_calib.cache.portable_index import JournalIndex
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.shard import PortableShard, Shard
from clasp_calib.common.errors import CacheError
from clasp_calib.common.progress import track

OPEN_SHARDS = 64
"""A large store has more shards than a process may have files open."""


@dataclass(frozen=True)
class Damage:
    """One slab (a picture's one layer) that is not what was written."""

    key: str
    layer: int
    shard: str
    """File name of the shard."""
    row: int
    """Where the picture begins in it, counted in tokens."""
    reason: str


class OpenStore:
    """An index and the shards that it names. Threads may share it; a forked process must make its own."""

    def __init__(self, root: Path, form: Form, index: Index):
        self.process = os.getpid()
        self.root = root
        self.form = form
        self.index = index
        self.portable = isinstance(index, JournalIndex)
        self.shard = lru_cache(OPEN_SHARDS)(self._shard)
        self._records: dict[int, ShardRecord] = {}
        self._places: dict[str, dict[int, tuple[IndexEntry, int]]] = {}
        self._version = -1
        self._mapped = maps_safely(root)

    def record(self, shard: int) -> ShardRecord:
        """The record of a shard, even of one that another process has just added."""
        if shard not in self._records:
            self._records = self.index.shards()
        return self._records[shard]

    def places(self, key: str) -> dict[int, tuple[IndexEntry, int]]:
        """Layer -> entry and position in its shard, for each layer that there is of a picture."""
        if not self.index.writable:
            # A reader looks the same pictures up again and again; what it found holds until somebody commits.
            if (version := self.index.version()) != self._version:
                self._places, self._version = {}, version
            if (known := self._places.get(key)) is not None:
                return known
        found = {
            layer: (entry, position)
            for entry in self.index.entries(key)
            for layer, position in entry.held(self.record(entry.shard).layers).items()
        }
        if not self.index.writable:
            self._places[key] = found
        return found

    def lacking(self, key: str, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of ``layers`` that there are not of a picture, ascending."""
        places = self.places(key)
        return tuple(sorted(layer for layer in layers if layer not in places))

    def damaged(self) -> Iterator[tuple[IndexEntry, list[Damage]]]:
        """Read every slab, shard by shard, and yield the entries that have damaged ones."""
        rows = (entry for shard in self.index.shards() for entry in self.index.entries_of(shard))
        strange = {number: self.strange(record) for number, record in self.index.shards().items()}
        for entry in track(rows, f"verifying {self.root}", self.index.count()):
            record = self.record(entry.shard)
            damages = []
            slab = self.form.empty(1, entry.tokens)
            for layer, position in entry.held(record.layers).items():
                reason = strange[record.id] or "the checksum is wrong"
                try:
                    if self.read(entry, position, slab) and not strange[record.id]:
                        continue
                except CacheError as error:
                    reason = str(error)
                damages.append(Damage(entry.key, layer, record.file, entry.row, reason))
            if damages:
                yield entry, damages

    def read(self, entry: IndexEntry, position: int, out: Stored) -> bool:
        """Read one slab, and tell whether it is what was written.

        Raises:
            CacheError: it cannot be read.
        """
        self.shard(entry.shard).read(entry, position, out)
        return checksums(out) == entry.checksum(position)

    def strange(self, record: ShardRecord) -> str:
        """Why a shard's own metadata does not fit the index; empty if it does."""
        path = self.root / record.file
        try:
            owner, offset, layers = described(path)
        except (OSError, KeyError, RuntimeError, TypeError) as error:
            return f"{path} is not readable as HDF5 ({error})"
        if owner != self.index.meta()["id"]:
            return f"{path} belongs to another cache ({owner}, the index is of {self.index.meta()['id']})"
        if (offset, layers) != (record.offset, record.layers):
            return f"{path} holds other layers than the index says"
        return ""

    def whole(self, record: ShardRecord) -> bool:
        """Whether a shard's file is there, not cut short, and what the index says of it."""
        try:
            self._open(record)
        except CacheError:
            return False
        return not self.strange(record)

    def _shard(self, number: int) -> Shard:
        return self._open(self.record(number))

    def _open(self, record: ShardRecord) -> Shard:
        if self.portable:
            return PortableShard(self.root, record, self.form)
        return Shard(self.root, record, self.form, mapped=self._mapped)
