"""Writing a feature store: in which order things reach the disk and the index.

The order is everything: a shard is complete before the index knows it, and a picture's bytes are written before its
row is committed. So a kill between any two steps costs at most the batch in hand, and never needs a repair.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from clasp_calib.cache.disk import DamagedError, check_plain, checksums
from clasp_calib.cache.feature_options import DEFAULTS, FeatureOptions, Layout
from clasp_calib.cache.filesystem import filesystem_of, is_local
from clasp_calib.cache.filling import DirectFilling, Filling, PicturePart, PortableFilling
from clasp_calib.cache.form import FORMAT, Form, check_meta
from clasp_calib.cache.index import FILE as INDEX_FILE, Index
from clasp_calib.cache.lock import WriterLock
from clasp_calib.cache.open_store import Damage, OpenStore
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.portable_index import FILE as JOURNAL_FILE, JournalIndex, there
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.quarantine import set_aside
from clasp_calib.cache.records import ABSENT, IndexEntry, ShardRecord
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.upgrade import examined
from clasp_calib.common.errors import CacheError
from clasp_calib.common.progress import note
from clasp_calib.common.replacing import clear_leftovers

SPARSE = 0.75
"""Share of a shard's rows in use below which `FeatureWriter.compact` moves them. Our choice: a fuller one gives
little."""


class FeatureWriter(FeatureStore):
    """The one process that may change a store, from construction to `close`. It reads too."""

    def __init__(self, root: Path, encoder: str, layers: Sequence[int], form: Form, options: FeatureOptions = DEFAULTS):
        """Take the lock, open or create the store, and clear away what a killed writer left.

        A store of an older format is brought to this one, and that is said.

        Args:
            root: directory of the store, made if need be.
            encoder: fingerprint of the encoder.
            layers: those that `put` will be given, as ``hidden_states`` counts them.
            form: of the slabs.
            options: ``shard_bytes``, ``durability``, and the ``layout`` of a new store.

        Raises:
            CacheError: somebody else writes, the place cannot be written to, shards lie there unindexed, or the store
                that is there is of another encoder, form or layout.
        """
        root = Path(root)
        self._layers = tuple(dict.fromkeys(layers))
        portable = _portable(root, options.layout)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"cannot make the directory {root} ({error.strerror}); give another") from error
        self._lock = WriterLock(root)
        try:
            index = _writable_index(root, portable, options)
            if not index.meta():
                index.initialise(form.meta(encoder))
            meta = index.meta()
            check_meta(root, meta, encoder, form)
            super().__init__(root, meta)
            if meta["format"] != FORMAT:
                _upgrade(root, form, index)
            self._opened = OpenStore(root, form, index)
            self._filling: Filling = (
                PortableFilling(root, form, index) if portable else DirectFilling(root, form, index, options)
            )
            self._clear_leftovers()
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def reopen(cls, root: Path) -> Self:
        """Open a store as it is: with the encoder, form and layers that it has.

        Raises:
            CacheError: as for the constructor; there is none.
        """
        with FeatureStore.open(root) as known:
            encoder, layers, form = known.encoder, known.layers, known.form
        return cls(root, encoder, layers, form)

    def close(self) -> None:
        """Bring everything to the disk and let the next writer in."""
        if self._opened is None or self._opened.process != os.getpid():
            return
        try:
            self._filling.close()
            super().close()
        finally:
            self._lock.release()

    def __getstate__(self) -> dict[str, Any]:
        raise CacheError(f"the writer of {self.root} cannot move to another process; open a reader there")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that it was opened with."""
        return self._layers

    def reserve(self, keys: Iterable[str]) -> None:
        """Say which pictures are going to be put, so that no shard is made larger than they need."""
        lacking = (self.opened.lacking(key, self.layers) for key in dict.fromkeys(keys))
        self._filling.expect(Counter(layers for layers in lacking if layers))

    def put(self, keys: Sequence[str], features: Sequence[Stored], origins: Sequence[Origin] | None = None) -> int:
        """Store pictures; when this returns, killing the process does not lose them.

        What is there already is left alone; of a picture that has some of the layers, only the others are written.

        Args:
            keys: content hashes of pictures.
            features: of each, made by `Precision.encode`; L in the order of `layers`.
            origins: of each; None where each is one image that needs no sizes.

        Returns:
            Number of pictures that were written to.

        Raises:
            CacheError: the features have another shape or type than the store's, or the disk is full.
        """
        opened = self.opened
        for stored in features:
            self._check(stored)
        wanted: list[PicturePart] = []
        done: set[str] = set()
        try:
            for key, stored, origin in zip(keys, features, origins or [Origin()] * len(keys), strict=True):
                if key in done or not (lacking := opened.lacking(key, self.layers)):
                    continue
                done.add(key)
                part = stored.at([self.layers.index(layer) for layer in lacking])
                wanted.append(PicturePart(key, lacking, part, origin.to_json(), checksums(part)))
            opened.index.change(*self._filling.write(wanted))
        except BaseException:
            # An interrupt may come just after the commit, so only the index knows which rows are free now.
            self._filling.start_anew()
            raise
        self._filling.committed()
        return len(done)

    def forget(self, keys: Iterable[str]) -> None:
        """Forget pictures; shards in which nothing is left are removed, `compact` gives other room back.

        Readers keep what they have open.
        """
        index = self.opened.index
        index.change(forget=[(entry.key, entry.shard) for key in keys for entry in index.entries(key)])
        filled = index.filled_shards()
        for record in [record for record in index.shards().values() if record.id not in filled]:
            index.change(forget_shards=[record.id])
            (self.root / record.file).unlink(missing_ok=True)
        self._start_anew()

    def compact(self) -> None:
        """Give room back that `forget` left: what sparsely filled shards hold moves together.

        Shards with damaged slabs stay as they are.

        Raises:
            CacheError: the disk has no room for one more shard.
        """
        index = self.opened.index
        entries = {number: index.entries_of(number) for number in index.shards()}
        sparse = {
            number: record
            for number, record in index.shards().items()
            if sum(len(record.layers) * self.form.stride(entry.tokens) for entry in entries[number])
            < SPARSE * record.rows
        }
        self._filling.expect(Counter(sparse[number].layers for number in sparse for _ in entries[number]))
        for number, record in sparse.items():
            try:
                parts = [self._whole(entry, record) for entry in entries[number]]
            except DamagedError as error:
                note(f"{record.file} stays as it is: {error}")
                continue
            try:
                shards, moved = self._filling.write(parts, avoid=sparse.keys())
                index.change(shards, moved, forget_shards=[number])
            except BaseException:
                self._start_anew()
                raise
            # What was copied is on the disk before the only other copy goes.
            self._filling.close()
            (self.root / record.file).unlink(missing_ok=True)
        self._start_anew()

    def drop_damaged(self) -> list[Damage]:
        """Forget each slab that is damaged, so that it, and nothing else, is written again.

        Damaged is what twice was not what was written. A shard that is so beside its features, cut short or of another
        cache is forgotten whole, moved to the quarantine, and named.

        Returns:
            What was damaged.

        Raises:
            CacheError: something cannot be read now; then nothing is changed.
        """
        opened = self.opened
        index = opened.index
        lost = opened.lost()
        found = list(opened.damaged(lost))
        kept, forgotten = [], []
        for entry, damages in found:
            if entry.shard in lost:
                continue
            layers = index.record(entry.shard).layers
            left = entry.with_checksums({layers.index(damage.layer): ABSENT for damage in damages})
            if left.held(layers):
                kept.append(left)
            else:
                forgotten.append((entry.key, entry.shard))
        index.change(entries=kept, forget=forgotten)
        for number, reason in lost.items():
            # Moved first: a shard that the index does not know would be taken for another kind of leftover.
            self._set_aside(index.record(number).file, reason)
            index.change(forget_shards=[number])
        self._start_anew()
        return [damage for _, damages in found for damage in damages]

    @property
    def opened(self) -> OpenStore:
        """What is open; a forked child is refused: neither SQLite nor the free rows can be shared with the parent."""
        if self._opened is None:
            raise CacheError(f"the cache {self.root} is not open for writing any more; open it again")
        if self._opened.process != os.getpid():
            raise CacheError(f"{self.root} was opened for writing by another process; open a reader here")
        return self._opened

    def _clear_leftovers(self) -> None:
        """Clear away what a killed writer left: a half-made shard, or a finished one not yet recorded.

        The latter may also be one whose index was lost and replaced, so it is kept.
        """
        for name in self.opened.strays():
            self._set_aside(name, f"{name} is not in the index")
        clear_leftovers(self.root, "shard-*.h5")

    def _set_aside(self, name: str, reason: str) -> None:
        moved = set_aside(self.root, name)
        note(
            f"{reason}: "
            + ("its pictures are forgotten" if moved is None else f"{self.root / name} is moved to {moved}")
        )

    def _whole(self, entry: IndexEntry, record: ShardRecord) -> PicturePart:
        """An entry with its bytes; those of a dropped slab are zeros.

        Raises:
            DamagedError: a slab is damaged.
        """
        stored = self.form.empty(len(record.layers), entry.tokens)
        for position in range(len(record.layers)):
            part = stored.at(slice(position, position + 1))
            if entry.has(position):
                self.opened.shard(entry.shard).read(entry, position, part)
            else:
                for array in part.parts:
                    array.fill(0)
        return PicturePart(entry.key, record.layers, stored, entry.origin, entry.checksums)

    def _start_anew(self) -> None:
        """Look up everything anew: shards have gone."""
        self._filling.start_anew()
        self.opened.shard.cache_clear()
        self._opened = OpenStore(self.root, self.form, self.opened.index)

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


def _upgrade(root: Path, form: Form, index: Index) -> None:
    old = index.meta()
    found = examined(root, form, old, index.shards().values())
    index.upgrade({"format": FORMAT}, [record for record in found.values() if isinstance(record, ShardRecord)])
    note(f"the index of the cache {root} was brought from format {old['format']} to {FORMAT}; older versions refuse it")
    for reason in (reason for reason in found.values() if isinstance(reason, str)):
        note(f"{reason}; `clasp-calib cache repair` moves that shard to the quarantine")


def _portable(root: Path, layout: Layout) -> bool:
    """Whether a store that is opened for writing is, or will be, a portable one."""
    is_there = there(root)
    if not FeatureStore.there(root):
        return not is_local(root) if layout == "auto" else layout == "portable"
    if layout != "auto" and (layout == "portable") != is_there:
        raise CacheError(
            f"the cache {root} is {'portable' if is_there else 'direct'}, asked for {layout}; "
            "leave the mode out, or give another directory"
        )
    if not is_there and not is_local(root):
        raise CacheError(
            f"the cache {root} can be read but not written to on the file system {filesystem_of(root)}; "
            "give another directory, in which a portable cache is made"
        )
    return is_there


def _writable_index(root: Path, portable: bool, options: FeatureOptions) -> Index:
    """Open or create the index; shards without one are not touched."""
    file = JOURNAL_FILE if portable else INDEX_FILE
    check_plain(root / file)
    # Not even a killed writer leaves a shard beside an index without a byte; a full disk or a power cut may.
    empty = not FeatureStore.there(root) or not (root / file).stat().st_size
    if empty and (shards := len(list(root.glob("shard-*.h5")))):
        raise CacheError(
            f"{root} has {shards} shards but no {file} with anything in it, without which nobody knows whose "
            "features they are; put a copy of it back, or remove the directory and run cache-features again"
        )
    return JournalIndex(root, True) if portable else Index(root, True, options.durability)
