"""What one process has open of a store: the index, and the shards that it read last."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from clasp_calib.cache.index import Entry, Index
from clasp_calib.cache.shard import Shard, ShardRecord, checksum
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
    slot: int
    reason: str


class Opened:
    """An index and the shards that it names. Threads may share it; a forked process must make its own."""

    def __init__(self, root: Path, shape: tuple[int, int], index: Index):
        self.process = os.getpid()
        self.root = root
        self.shape = shape
        self.index = index
        self.shard = lru_cache(OPEN_SHARDS)(self._shard)
        self._records: dict[int, ShardRecord] = {}

    def record(self, shard: int) -> ShardRecord:
        """The record of a shard, even of one that another process has just added."""
        if shard not in self._records:
            self._records = self.index.shards()
        return self._records[shard]

    def places(self, key: str) -> dict[int, tuple[Entry, int]]:
        """Layer -> entry and position in its shard, for each layer that there is of a picture."""
        return {
            layer: (entry, position)
            for entry in self.index.entries(key)
            for position, layer in enumerate(self.record(entry.shard).layers)
        }

    def lacking(self, key: str, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of ``layers`` that there are not of a picture, ascending."""
        places = self.places(key)
        return tuple(sorted(layer for layer in layers if layer not in places))

    def damaged(self) -> Iterator[tuple[Entry, list[Damage]]]:
        """Read every slab, shard by shard, and yield the entries that have damaged ones."""
        slab_TC = np.empty(self.shape, dtype=np.float16)
        rows = (entry for shard in self.index.shards() for entry in self.index.entries_of(shard))
        for entry in track(rows, f"verifying {self.root}", self.index.count()):
            record = self.record(entry.shard)
            damages = []
            for position, layer in enumerate(record.layers):
                reason = "the checksum is wrong"
                try:
                    self.shard(record.id).read(entry.slot, position, slab_TC)
                    if checksum(slab_TC) == entry.checksum(position):
                        continue
                except CacheError as error:
                    reason = str(error)
                damages.append(Damage(entry.key, layer, record.file, entry.slot, reason))
            if damages:
                yield entry, damages

    def _shard(self, shard: int) -> Shard:
        return Shard(self.root, self.record(shard), self.shape)
