"""The writing half of a store: where the next picture goes, and in which order things reach the disk.

The order is everything: a shard is complete before the index knows it, and a picture's bytes are written
before its row is committed. So a kill between any two steps costs at most the batch in hand, and never needs
a repair.

Shape suffixes: B pictures, L layers, T tokens, C channels.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clasp_calib.cache.index import FILE as INDEX_FILE
from clasp_calib.cache.index import Entry, Index
from clasp_calib.cache.lock import WriterLock
from clasp_calib.cache.opened import Damage, Opened
from clasp_calib.cache.shard import Halves, Shard, ShardRecord, create_shard
from clasp_calib.common.errors import CacheError


@dataclass
class Place:
    """A shard that is being filled, and its free slots."""

    shard: Shard
    free: deque[int]


class Writer:
    """The one process that may change a store, from construction to `close`."""

    def __init__(self, root: Path, layers: tuple[int, ...], shape: tuple[int, int], encoder: str, shard_bytes: int):
        """Take the lock and open or create the index; the store's identity is not checked yet.

        Raises:
            CacheError: somebody else writes, the place cannot be written to, or shards lie there unindexed.
        """
        self.root = root
        self.layers = layers
        self.shape = shape
        self.encoder = encoder
        self._slab_bytes = shape[0] * shape[1] * 2
        self._shard_bytes = shard_bytes
        self._filling: dict[int, Place] = {}
        self._expected: Counter[tuple[int, ...]] = Counter()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot make the directory {root} ({error.strerror}); give another") from error
        self._lock = WriterLock(root)
        try:
            if (shards := len(list(root.glob("shard-*.h5")))) and not (root / INDEX_FILE).exists():
                raise CacheError(
                    f"{root} has {shards} shards but no {INDEX_FILE}, without which nobody knows whose "
                    "features they are; put it back, or remove the directory and run cache-features again"
                )
            self.opened = Opened(root, shape, Index(root, writable=True))
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Bring everything to the disk and let the next writer in."""
        try:
            for place in self._filling.values():
                place.shard.sync()
            self.opened.index.close()
        finally:
            self._filling.clear()
            self._lock.release()

    def check_process(self) -> None:
        """Refuse a forked child: neither SQLite nor the free slots can be shared with the parent.

        Raises:
            CacheError: this is not the process that opened the store.
        """
        if os.getpid() != self.opened.process:
            raise CacheError(f"{self.root} was opened for writing by another process; open a reader here")

    def clear_leftovers(self) -> None:
        """Remove what a killed writer left: a half-made shard, or a finished one not yet recorded."""
        known = {record.file for record in self.opened.index.shards().values()}
        for path in self.root.glob("shard-*.h5*"):
            if path.name not in known:
                path.unlink(missing_ok=True)

    def reserve(self, keys: Iterable[str]) -> None:
        """See `FeatureStore.reserve`."""
        lacking = (self.opened.lacking(key, self.layers) for key in dict.fromkeys(keys))
        self._expected = Counter(layers for layers in lacking if layers)

    def put(self, keys: Sequence[str], features_BLTC: Halves) -> int:
        """See `FeatureStore.put`."""
        expected = (len(keys), len(self.layers), *self.shape)
        if features_BLTC.dtype != np.float16 or features_BLTC.shape != expected:
            raise CacheError(
                f"put got features {features_BLTC.dtype} {features_BLTC.shape}; expected float16 {expected}: "
                "pictures, layers, tokens, channels"
            )
        taken: list[Place] = []
        entries: dict[str, Entry] = {}
        try:
            for key, features_LTC in zip(keys, features_BLTC, strict=True):
                lacking = self.opened.lacking(key, self.layers)
                if not lacking or key in entries:
                    continue
                place = self._place(lacking)
                slot = place.free.popleft()
                taken.append(place)
                self._expected[lacking] -= 1
                chosen = [self.layers.index(layer) for layer in lacking]
                checksums = place.shard.write(slot, np.ascontiguousarray(features_LTC[chosen]))
                entries[key] = Entry(key, place.shard.record.id, slot, checksums)
            self.opened.index.commit(entries.values())
        except BaseException:
            # An interrupt may come just after the commit, so only the index knows which slots are free now.
            self._filling.clear()
            self._expected.update(place.shard.record.layers for place in taken)
            raise
        self._retire_full()
        return len(entries)

    def drop_damaged(self) -> list[Damage]:
        """See `FeatureStore.drop_damaged`."""
        index = self.opened.index
        found = list(self.opened.damaged())
        index.drop(entry for entry, _ in found)
        for record in index.shards().values():
            try:
                Shard(self.root, record, self.shape)
            except CacheError:
                index.drop_shard(record.id)
                (self.root / record.file).unlink(missing_ok=True)
        # Which slots are free is worked out anew, from what the index says now.
        self._filling.clear()
        self.opened = Opened(self.root, self.shape, index)
        return [damage for _, damages in found for damage in damages]

    def _place(self, layers: tuple[int, ...]) -> Place:
        """A shard of exactly these layers with a free slot: one that is there, or a new one."""
        for place in self._filling.values():
            if place.shard.record.layers == layers and place.free:
                return place
        # A shard that is being filled has slots in hand of which the index does not know yet.
        found = [
            record
            for record in self.opened.index.shards_with_room()
            if record.layers == layers and record.id not in self._filling
        ]
        record = found[0] if found else self._new_shard(layers)
        used = {entry.slot for entry in self.opened.index.entries_of(record.id)}
        free = deque(slot for slot in range(record.slots) if slot not in used)
        place = self._filling[record.id] = Place(Shard(self.root, record, self.shape, writable=True), free)
        return place

    def _retire_full(self) -> None:
        for number, place in list(self._filling.items()):
            if not place.free:
                place.shard.sync()
                del self._filling[number]

    def _new_shard(self, layers: tuple[int, ...]) -> ShardRecord:
        number = self.opened.index.next_shard()
        file = f"shard-{number:05d}.h5"
        slots = self._shard_bytes // (len(layers) * self._slab_bytes)
        if (expected := self._expected[layers]) > 0:
            slots = min(slots, expected)
        slots = max(slots, 1)
        offset = create_shard(self.root / file, slots, layers, self.shape, self.encoder)
        record = ShardRecord(number, file, offset, slots, layers)
        self.opened.index.add_shard(record)
        return record
