"""The writing half of a store: in which order things reach the disk and the index.

The order is everything: a shard is complete before the index knows it, and a picture's bytes are written
before its row is committed. So a kill between any two steps costs at most the batch in hand, and never needs
a repair.

Shape suffixes: L layers, T tokens, C channels.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from clasp_calib.cache.disk import checksums
from clasp_calib.cache.feature_options import Durability
from clasp_calib.cache.filling import DirectFilling, Filling, PicturePart, PortableFilling, holes, part_of
from clasp_calib.cache.index import ABSENT, Index, IndexEntry, ShardRecord
from clasp_calib.cache.index import FILE as INDEX_FILE
from clasp_calib.cache.lock import WriterLock
from clasp_calib.cache.open_store import Damage, OpenStore
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.portable_index import FILE as JOURNAL_FILE
from clasp_calib.cache.portable_index import JournalIndex
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.shard import Form
from clasp_calib.common.errors import CacheError

SPARSE = 0.75
"""Share of a shard's rows in use below which `Writer.compact` moves them. Our choice: a fuller one gives little."""


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
        portable: bool,
    ):
        """Take the lock, open or create the index, and remove what a killed writer left.

        Args:
            root: directory of the store.
            layers: those that `put` will be given.
            proposed: what a new store is to have in common.
            check: raises if what the store has in common is not what was asked for.
            shard_bytes: size of a shard.
            durability: what an acknowledged picture survives.
            portable: whether it is, or a new store is to be, a portable one.

        Raises:
            CacheError: somebody else writes, the place cannot be written to, shards lie there unindexed, or
                ``check`` says so.
        """
        self.root = root
        self.layers = layers
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot make the directory {root} ({error.strerror}); give another") from error
        self._lock = WriterLock(root)
        try:
            _refuse_orphans(root, JOURNAL_FILE if portable else INDEX_FILE)
            index = JournalIndex(root, True) if portable else Index(root, True, durability)
            if not index.meta():
                index.initialise(proposed)
            self.meta = index.meta()
            check(self.meta)
            self.form = form = Form.of(self.meta)
            self.opened = OpenStore(root, form, index)
            self._filling: Filling = (
                PortableFilling(root, form, index, self.meta)
                if portable
                else DirectFilling(root, form, index, self.meta, shard_bytes, durability)
            )
            self._clear_leftovers()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Bring everything to the disk and let the next writer in."""
        try:
            self._filling.close()
            self.opened.index.close()
        finally:
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
        self._filling.expect(Counter(layers for layers in lacking if layers))

    def put(self, keys: Sequence[str], features: Sequence[Stored], origins: Sequence[Origin]) -> int:
        """See `FeatureStore.put`."""
        for stored in features:
            self._check(stored)
        mended: list[IndexEntry] = []
        wanted: list[PicturePart] = []
        done: set[str] = set()
        try:
            for key, stored, origin in zip(keys, features, origins, strict=True):
                if key in done or not (lacking := self.opened.lacking(key, self.layers)):
                    continue
                done.add(key)
                if entries := self._mended(key, lacking, stored):
                    mended += entries
                    filled = {layer for entry in entries for layer in self.opened.record(entry.shard).layers}
                    lacking = tuple(layer for layer in lacking if layer not in filled)
                if lacking:
                    wanted.append(part_of(key, lacking, stored, self.layers, origin.to_json()))
            written = self._filling.write(wanted)
            self.opened.index.change(shards=written.shards, entries=[*mended, *written.entries])
        except BaseException:
            # An interrupt may come just after the commit, so only the index knows which rows are free now.
            self._filling.start_anew()
            raise
        self._filling.committed()
        return len(done)

    def _mended(self, key: str, lacking: tuple[int, ...], stored: Stored) -> list[IndexEntry]:
        """The picture's entries whose dropped slabs could be written where they were."""
        found = []
        for entry in self.opened.index.entries(key):
            record = self.opened.record(entry.shard)
            slabs = {
                position: stored.at([self.layers.index(layer)])
                for layer, position in holes(entry, record.layers).items()
                if layer in lacking and entry.tokens == stored.data_LTC.shape[1]
            }
            if slabs and (mended := self._filling.mend(entry, record, slabs)):
                found.append(mended)
        return found

    def forget(self, entries: Iterable[IndexEntry]) -> None:
        """Forget entries, and remove the shards that nothing is left in; their readers keep what they have open."""
        index = self.opened.index
        index.change(forget=[(entry.key, entry.shard) for entry in entries])
        filled = index.filled_shards()
        self._remove(record for record in index.shards().values() if record.id not in filled)

    def compact(self) -> None:
        """Move what sparsely filled shards hold into new ones of the right size, and remove the old.

        Shards with damaged slabs stay as they are.
        """
        index, form = self.opened.index, self.form
        entries = {number: index.entries_of(number) for number in index.shards()}
        sparse = {
            number: record
            for number, record in index.shards().items()
            if sum(len(record.layers) * form.stride(entry.tokens) for entry in entries[number]) < SPARSE * record.rows
        }
        self._filling.expect(Counter(sparse[number].layers for number in sparse for _ in entries[number]))
        for number, record in sparse.items():
            parts = [self._whole(entry, record) for entry in entries[number]]
            if any(part is None for part in parts):
                continue
            try:
                written = self._filling.write([part for part in parts if part is not None], avoid=sparse.keys())
                index.change(written.shards, written.entries, forget_shards=[number])
            except BaseException:
                self._start_anew()
                raise
            self._filling.committed()
            (self.root / record.file).unlink(missing_ok=True)
        self._start_anew()

    def _whole(self, entry: IndexEntry, record: ShardRecord) -> PicturePart | None:
        """An entry with its bytes, None if they are damaged; a dropped slab goes along as it is."""
        stored = self.form.precision.empty(len(record.layers), entry.tokens, self.form.channels)
        for position in range(len(record.layers)):
            slab = stored.at(slice(position, position + 1))
            try:
                self.opened.shard(record.id).read(entry, position, slab)
            except CacheError:
                return None
            if entry.has(position) and checksums(slab) != entry.checksum(position):
                return None
        return PicturePart(entry.key, record.layers, stored, entry.origin, entry.checksums)

    def drop_damaged(self) -> list[Damage]:
        """See `FeatureStore.drop_damaged`."""
        index = self.opened.index
        found = list(self.opened.damaged())
        lost = [record for record in index.shards().values() if not self.opened.whole(record)]
        gone = {record.id for record in lost}
        kept, forgotten = [], []
        for entry, damages in found:
            layers = self.opened.record(entry.shard).layers
            left = entry.with_checksums({layers.index(damage.layer): ABSENT for damage in damages})
            if entry.shard in gone:
                continue
            if any(left.has(position) for position in range(len(layers))):
                kept.append(left)
            else:
                forgotten.append((entry.key, entry.shard))
        index.change(entries=kept, forget=forgotten)
        self._remove(lost)
        return [damage for _, damages in found for damage in damages]

    def _remove(self, records: Iterable[ShardRecord]) -> None:
        """Forget shards and remove their files."""
        for record in list(records):
            self.opened.index.change(forget_shards=[record.id])
            (self.root / record.file).unlink(missing_ok=True)
        self._start_anew()

    def _start_anew(self) -> None:
        """Look up everything anew: shards have gone."""
        self._filling.start_anew()
        self.opened = OpenStore(self.root, self.form, self.opened.index)

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


def _refuse_orphans(root: Path, index: str) -> None:
    if (shards := len(list(root.glob("shard-*.h5")))) and not (root / index).exists():
        raise CacheError(
            f"{root} has {shards} shards but no {index}, without which nobody knows whose "
            "features they are; put it back, or remove the directory and run cache-features again"
        )
