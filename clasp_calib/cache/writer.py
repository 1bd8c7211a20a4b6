"""The writing half of a store: where the next picture goes, and in which order things reach the disk.

The order is everything: a shard is complete before the index knows it, and a picture's bytes are written
before its row is committed. So a kill between any two steps costs at most the batch in hand, and never needs
a repair.

Shape suffixes: L layers, T tokens, C channels.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clasp_calib.cache.disk import checksums
from clasp_calib.cache.index import FILE as INDEX_FILE
from clasp_calib.cache.index import Durability, Entry, Index, ShardRecord
from clasp_calib.cache.lock import WriterLock
from clasp_calib.cache.opened import Damage, Opened
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.shard import Form, Shard, create_shard
from clasp_calib.common.errors import CacheError


@dataclass
class Place:
    """A shard that is being filled, and the stretches of it that are free."""

    shard: Shard
    free: list[tuple[int, int]]
    """First row and rows of each, ascending."""

    def take(self, rows: int) -> int | None:
        """The first of so many free rows, which are free no more; None if no stretch has them."""
        for number, (start, room) in enumerate(self.free):
            if room >= rows:
                self.free[number : number + 1] = [(start + rows, room - rows)] if room > rows else []
                return start
        return None


class Writer:
    """The one process that may change a store, from construction to `close`."""

    def __init__(
        self,
        root: Path,
        layers: tuple[int, ...],
        proposed: Mapping[str, str],
        check: Callable[[Mapping[str, str]], None],
        shard_bytes: int,
        durability: Durability,
    ):
        """Take the lock, open or create the index, and remove what a killed writer left.

        Args:
            root: directory of the store.
            layers: those that `put` will be given.
            proposed: what a new store is to have in common.
            check: raises if what the store has in common is not what was asked for.
            shard_bytes: size of a shard.
            durability: what an acknowledged picture survives.

        Raises:
            CacheError: somebody else writes, the place cannot be written to, shards lie there unindexed, or
                ``check`` says so.
        """
        self.root = root
        self.layers = layers
        self._durability = durability
        self._shard_bytes = shard_bytes
        self._filling: dict[int, Place] = {}
        self._candidates: list[ShardRecord] | None = None
        """The shards that may have free rows; None if only the index knows."""
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
            index = Index(root, writable=True, durability=durability)
            if not index.meta():
                index.initialise(proposed)
            self.meta = index.meta()
            check(self.meta)
            self.form = Form.of(self.meta)
            self.opened = Opened(root, self.form, index)
            self._clear_leftovers()
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
        """Refuse a forked child: neither SQLite nor the free rows can be shared with the parent.

        Raises:
            CacheError: this is not the process that opened the store.
        """
        if os.getpid() != self.opened.process:
            raise CacheError(f"{self.root} was opened for writing by another process; open a reader here")

    def _clear_leftovers(self) -> None:
        """Remove what a killed writer left: a half-made shard, or a finished one not yet recorded."""
        known = {record.file for record in self.opened.index.shards().values()}
        for path in self.root.glob("shard-*.h5*"):
            if path.name not in known:
                path.unlink(missing_ok=True)

    def reserve(self, keys: Iterable[str]) -> None:
        """See `FeatureStore.reserve`."""
        lacking = (self.opened.lacking(key, self.layers) for key in dict.fromkeys(keys))
        self._expected = Counter(layers for layers in lacking if layers)

    def put(self, keys: Sequence[str], features: Sequence[Stored], origins: Sequence[Origin]) -> int:
        """See `FeatureStore.put`."""
        for stored in features:
            self._check(stored)
        taken: list[Place] = []
        entries: dict[str, Entry] = {}
        try:
            for key, stored, origin in zip(keys, features, origins, strict=True):
                lacking = self.opened.lacking(key, self.layers)
                if not lacking or key in entries:
                    continue
                tokens = stored.data_LTC.shape[1]
                place, row = self._place(lacking, len(lacking) * self.form.stride(tokens))
                taken.append(place)
                self._expected[lacking] -= 1
                part = _layers_of(stored, [self.layers.index(layer) for layer in lacking])
                place.shard.write(row, part)
                entries[key] = Entry(key, place.shard.record.id, row, tokens, origin.to_json(), checksums(part))
            if self._durability == "power":
                for place in {place.shard.record.id: place for place in taken}.values():
                    place.shard.sync(data_only=True)
            self.opened.index.commit(entries.values())
        except BaseException:
            # An interrupt may come just after the commit, so only the index knows which rows are free now.
            self._filling.clear()
            self._candidates = None
            self._expected.update(place.shard.record.layers for place in taken)
            raise
        self._retire_full()
        return len(entries)

    def forget(self, entries: Iterable[Entry]) -> None:
        """Forget entries, and remove the shards that nothing is left in; their readers keep what they have open."""
        index = self.opened.index
        index.drop(entries)
        filled = index.filled_shards()
        for record in index.shards().values():
            if record.id not in filled:
                index.drop_shard(record.id)
                (self.root / record.file).unlink(missing_ok=True)
        self._start_anew()

    def drop_damaged(self) -> list[Damage]:
        """See `FeatureStore.drop_damaged`."""
        index = self.opened.index
        found = list(self.opened.damaged())
        index.drop(entry for entry, _ in found)
        for record in index.shards().values():
            if self.opened.strange(record) or not self._complete(record):
                index.drop_shard(record.id)
                (self.root / record.file).unlink(missing_ok=True)
        self._start_anew()
        return [damage for _, damages in found for damage in damages]

    def _complete(self, record: ShardRecord) -> bool:
        try:
            Shard(self.root, record, self.form)
        except CacheError:
            return False
        return True

    def _start_anew(self) -> None:
        """Work out anew which rows are free, from what the index says now."""
        self._filling.clear()
        self._candidates = None
        self.opened = Opened(self.root, self.form, self.opened.index)

    def _check(self, stored: Stored) -> None:
        form = self.form
        shape = stored.data_LTC.shape
        tokens = shape[1] if len(shape) == 3 and form.tokens is None else form.tokens
        expected = (len(self.layers), tokens, form.channels)
        if stored.data_LTC.dtype != form.precision.data or shape != expected:
            raise CacheError(
                f"put got features {stored.data_LTC.dtype} {shape}; expected {form.precision.data} {expected}: "
                "layers, tokens, channels"
            )

    def _place(self, layers: tuple[int, ...], rows: int) -> tuple[Place, int]:
        """Free rows in a shard of exactly these layers: one that is there, or a new one."""
        if self._candidates is None:
            self._candidates = list(self.opened.index.shards().values())
        for record in [record for record in self._candidates if record.layers == layers]:
            # A shard that is being filled has rows in hand of which the index does not know yet.
            place = self._filling.get(record.id) or self._open(record)
            if (row := place.take(rows)) is not None:
                self._filling[record.id] = place
                return place, row
            if not place.free:
                self._candidates.remove(record)
        record = self._new_shard(layers, rows)
        self._candidates.append(record)
        place = self._filling[record.id] = self._open(record)
        row = place.take(rows)
        assert row is not None
        return place, row

    def _open(self, record: ShardRecord) -> Place:
        free, end = [], 0
        for entry in self.opened.index.entries_of(record.id):
            if entry.row > end:
                free.append((end, entry.row - end))
            end = entry.row + len(record.layers) * self.form.stride(entry.tokens)
        if record.rows > end:
            free.append((end, record.rows - end))
        return Place(Shard(self.root, record, self.form, writable=True), free)

    def _retire_full(self) -> None:
        for number, place in list(self._filling.items()):
            if not place.free:
                place.shard.sync()
                del self._filling[number]

    def _new_shard(self, layers: tuple[int, ...], rows: int) -> ShardRecord:
        """A shard for pictures of about ``rows`` rows: no larger than those that are expected need."""
        number = self.opened.index.next_shard()
        file = f"shard-{number:05d}.h5"
        precision, channels = self.form.precision, self.form.channels
        pictures = self._shard_bytes // (rows * (precision.data_row(channels) + precision.scale_row(channels)))
        if (expected := self._expected[layers]) > 0:
            pictures = min(pictures, expected)
        room = max(pictures, 1) * rows
        offset, scale_offset = create_shard(self.root / file, room, layers, self.form, self.meta)
        record = ShardRecord(number, file, offset, scale_offset, room, layers)
        self.opened.index.add_shard(record)
        return record


def _layers_of(stored: Stored, positions: list[int]) -> Stored:
    """Some layers of a picture, C-contiguous; without a copy where it is all of them in their order."""
    if positions == list(range(len(stored.data_LTC))) and stored.data_LTC.flags.c_contiguous:
        return stored
    return stored.at(positions)
