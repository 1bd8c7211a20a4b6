"""What one process has open of a store: the index, and the shards that it read last."""

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clasp_calib.cache.disk import REPAIR, DamagedError
from clasp_calib.cache.form import FORMAT, Form
from clasp_calib.cache.index import Index
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.records import SHARD_NAME, IndexEntry, ShardRecord
from clasp_calib.cache.shard import Shard
from clasp_calib.cache.upgrade import examined
from clasp_calib.common.progress import track

OPEN_SHARDS = 16
"""A large store has more shards than a process may have files open, and some allow 64 in all."""


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
        self.shard = lru_cache(OPEN_SHARDS)(self._shard)
        self.old = index.meta().get("format") != FORMAT
        """Whether it is of an older format."""
        self._examined: dict[int, ShardRecord | str] = {}
        self._places: dict[str, dict[int, tuple[IndexEntry, int]]] = {}
        self._version = -1
        self._slabs = threading.local()

    def close(self) -> None:
        """Close the shards and the index."""
        self.shard.cache_clear()
        self.index.close()

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
            for layer, position in entry.held(self.index.record(entry.shard).layers).items()
        }
        if not self.index.writable:
            self._places[key] = found
        return found

    def lacking(self, key: str, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of ``layers`` that there are not of a picture, ascending."""
        places = self.places(key)
        return tuple(sorted(layer for layer in layers if layer not in places))

    def slab(self, entry: IndexEntry, position: int) -> Stored:
        """One slab, as it was written, in memory that this thread's next slab takes.

        Raises:
            DamagedError: it is not what was written.
            CacheError: it cannot be read now.
        """
        shard = self.shard(entry.shard)
        slab: Stored | None = getattr(self._slabs, "last", None)
        if slab is None or slab.data_LTC.shape[1] != entry.tokens:
            slab = self._slabs.last = self.form.empty(1, entry.tokens)
        shard.read(entry, position, slab)
        return slab

    def strays(self) -> list[str]:
        """Names of shards in the directory that the index does not know."""
        known = {record.file for record in self.index.shards().values()}
        found = (path.name for path in self.root.glob("shard-*.h5"))
        return sorted(name for name in found if SHARD_NAME.fullmatch(name) and name not in known)

    def lost(self) -> dict[int, str]:
        """Number of each shard that is missing, cut short, or not what was written beside its features; and why."""
        found = {}
        self.index.filled_shards()
        for number in track(list(self.index.shards()), f"looking at the shards of {self.root}"):
            try:
                if self.old:
                    self._sound(number)
                else:
                    self.shard(number).check_header()
            except DamagedError as error:
                found[number] = str(error).removesuffix(f"; {REPAIR}")
        return found

    def damaged(self, lost: Mapping[int, str]) -> Iterator[tuple[IndexEntry, list[Damage]]]:
        """Read every slab, shard by shard, and yield the entries that have damaged ones.

        Args:
            lost: shards of which nothing is read, as of `lost`.

        Raises:
            CacheError: one cannot be read now, which says nothing about what is in it.
        """
        rows = (entry for shard in self.index.shards() for entry in self.index.entries_of(shard))
        for entry in track(rows, f"verifying {self.root}", self.index.count()):
            record = self.index.record(entry.shard)
            reasons: dict[int, str] = {}
            for layer, position in entry.held(record.layers).items():
                try:
                    if entry.shard in lost:
                        reasons[layer] = lost[entry.shard]
                    else:
                        self.slab(entry, position)
                except DamagedError:
                    reasons[layer] = "it is not what was written"
            # A writer may have moved it meanwhile.
            if reasons and entry in self.index.entries(entry.key):
                yield entry, [Damage(entry.key, at, record.file, entry.row, why) for at, why in reasons.items()]

    def _shard(self, number: int) -> Shard:
        record = self.index.record(number)
        if self.old and not record.offset:
            record = self._sound(number)
        return Shard(self.root / record.file, record, self.form)

    def _sound(self, number: int) -> ShardRecord:
        """A shard of an older format, with what this one knows of it."""
        if number not in self._examined:
            # All at once, since a process is started for it.
            unknown = [shard for known, shard in self.index.shards().items() if known not in self._examined]
            self._examined |= examined(self.root, self.form, self.index.meta(), unknown)
        found = self._examined[number]
        if isinstance(found, str):
            raise DamagedError(f"{found}; {REPAIR}")
        return found
