"""Where the next picture goes: into free rows of shards that are filled in place, or into a shard of its batch.

Both write a picture's bytes before anybody learns of them; the caller then commits what they return.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from clasp_calib.cache.disk import write_failed
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.form import Form
from clasp_calib.cache.hdf5 import create_shard
from clasp_calib.cache.index import Index
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.records import IndexEntry, ShardRecord, shard_name
from clasp_calib.cache.shard import Shard
from clasp_calib.common.errors import CacheError
from clasp_calib.common.replacing import replaced

OPEN_SHARDS = 8
"""Shards with room that stay open from one batch to the next."""
Written = tuple[Sequence[ShardRecord], Sequence[IndexEntry]]
"""What is on the disk and is now to be committed: new shards, and entries."""


class PicturePart(NamedTuple):
    """Layers of one picture that are to be written together."""

    key: str
    layers: tuple[int, ...]
    stored: Stored
    """One slab each; C-contiguous."""
    origin: str
    checksums: bytes

    def entry(self, shard: int, row: int) -> IndexEntry:
        """The entry for the index, if this begins at a row of a shard."""
        return IndexEntry(self.key, shard, row, self.stored.data_LTC.shape[1], self.origin, self.checksums)


class Filling:
    """Writes parts of pictures. What is here is for shards that have no room left once they are written."""

    def __init__(self, root: Path, form: Form, index: Index):
        self._root, self._form, self._index = root, form, index

    def write(self, parts: Sequence[PicturePart], avoid: Collection[int] = ()) -> Written:
        """Write parts, none of them into the shards to ``avoid``.

        Raises:
            CacheError: the disk is full or failed.
        """
        raise NotImplementedError

    def expect(self, layers: Mapping[tuple[int, ...], int]) -> None:
        """Note how many pictures with which layers will come, so that no shard is made larger than they need."""

    def committed(self) -> None:
        """Called when what was written is committed: bring full shards to the disk."""

    def start_anew(self) -> None:
        """Forget which room is left; the index is asked again."""

    def close(self) -> None:
        """Bring everything to the disk."""

    @contextmanager
    def _new(self, number: int) -> Iterator[Path]:
        """A path to write a new shard to, which is then there under its own name.

        Raises:
            CacheError: something is there already, or the disk is full or failed.
        """
        path = self._root / shard_name(number)
        if os.path.lexists(path):
            raise CacheError(f"{path} is in the way of a new shard, and the index does not know it; move it elsewhere")
        try:
            with replaced(path) as partial:
                yield partial
        except OSError as error:
            raise write_failed(error, f"cannot write the shard {path}") from error

    def _rows(self, layers: Sequence[int], tokens: int) -> int:
        """Rows that a picture takes."""
        return len(layers) * self._form.stride(tokens)


@dataclass
class _Place:
    """A shard that is being filled, and the stretches of it that are free."""

    record: ShardRecord
    free: list[tuple[int, int]]
    """First row and rows of each, ascending."""
    shard: Shard | None = None
    """Opened when there is something to write."""

    def take(self, rows: int) -> int | None:
        """The first of so many free rows, which are free no more; None if no stretch has them."""
        for number, (start, room) in enumerate(self.free):
            if room >= rows:
                self.free[number : number + 1] = [(start + rows, room - rows)] if room > rows else []
                return start
        return None

    def close(self) -> None:
        """Bring what was written to the disk, and open the shard again when there is more to write."""
        if self.shard is not None:
            self.shard.sync()
            self.shard = None


class DirectFilling(Filling):
    """Writes into reserved room, one picture after another."""

    def __init__(self, root: Path, form: Form, index: Index, options: FeatureOptions):
        super().__init__(root, form, index)
        self._options = options
        self._places: dict[int, _Place] | None = None
        """By number, the shards that have free rows, of some of which the index does not know yet that they are taken;
        None if only the index knows."""
        self._expected: Counter[tuple[int, ...]] = Counter()

    def expect(self, layers: Mapping[tuple[int, ...], int]) -> None:
        """See `Filling`."""
        self._expected = Counter(layers)

    def write(self, parts: Sequence[PicturePart], avoid: Collection[int] = ()) -> Written:
        """See `Filling`."""
        entries, taken = [], []
        try:
            for part in parts:
                place, row = self._place(part.layers, self._rows(part.layers, part.stored.data_LTC.shape[1]), avoid)
                taken.append(place)
                self._expected[part.layers] -= 1
                place.shard = place.shard or self._opened(place.record)
                place.shard.write(row, part.stored)
                entries.append(part.entry(place.record.id, row))
            for shard in {place.shard for place in taken if place.shard is not None}:
                self._written(shard)
        except BaseException:
            self._expected.update(place.record.layers for place in taken)
            raise
        return (), entries

    def committed(self) -> None:
        """See `Filling`."""
        places = self._places or {}
        for number in [number for number, place in places.items() if not place.free]:
            places.pop(number).close()
        for place in [place for place in places.values() if place.shard is not None][:-OPEN_SHARDS]:
            place.close()

    def start_anew(self) -> None:
        """See `Filling`."""
        self._places = None

    def close(self) -> None:
        """See `Filling`."""
        for place in (self._places or {}).values():
            place.close()

    def _opened(self, record: ShardRecord) -> Shard:
        """A shard to write to, whose header shows that it is the one that the index means."""
        shard = Shard(self._root / record.file, record, self._form, writable=True)
        shard.check_header()
        return shard

    def _written(self, shard: Shard) -> None:
        if self._options.durability == "power":
            shard.sync(data_only=True)

    def _place(self, layers: tuple[int, ...], rows: int, avoid: Collection[int]) -> tuple[_Place, int]:
        """Free rows in a shard of exactly these layers: one that is there, or a new one."""
        if self._places is None:
            rooms = [self._room(record) for record in self._index.shards().values()]
            self._places = {room.record.id: room for room in rooms if room.free}
        for place in self._places.values():
            if place.record.layers == layers and place.record.id not in avoid and (row := place.take(rows)) is not None:
                return place, row
        record = self._new_shard(layers, rows)
        place = self._places[record.id] = self._room(record)
        row = place.take(rows)
        assert row is not None
        return place, row

    def _room(self, record: ShardRecord) -> _Place:
        free, end = [], 0
        for entry in self._index.entries_of(record.id):
            if entry.row > end:
                free.append((end, entry.row - end))
            end = max(end, entry.row + self._rows(record.layers, entry.tokens))
        if record.rows > end:
            free.append((end, record.rows - end))
        return _Place(record, free)

    def _new_shard(self, layers: tuple[int, ...], rows: int) -> ShardRecord:
        """A shard for pictures of about ``rows`` rows: no larger than those that are expected need."""
        number = self._index.next_shard()
        pictures = self._options.shard_bytes // (rows * self._form.token_bytes)
        if (expected := self._expected[layers]) > 0:
            pictures = min(pictures, expected)
        room = max(pictures, 1) * rows
        with self._new(number) as partial:
            record = create_shard(partial, number, room, layers, self._form, self._index.meta())
        self._index.change(shards=[record])
        return record


class PortableFilling(Filling):
    """Makes a shard of every batch, which is then complete and never changed."""

    def write(self, parts: Sequence[PicturePart], avoid: Collection[int] = ()) -> Written:
        """See `Filling`."""
        records: list[ShardRecord] = []
        entries: list[IndexEntry] = []
        first, identity = self._index.next_shard(), self._index.meta()
        for number, layers in enumerate(dict.fromkeys(part.layers for part in parts), first):
            batch = [part for part in parts if part.layers == layers]
            rows = [self._rows(layers, part.stored.data_LTC.shape[1]) for part in batch]
            begins = [sum(rows[:at]) for at in range(len(rows))]
            with self._new(number) as partial:
                record = create_shard(partial, number, sum(rows), layers, self._form, identity, reserve=False)
                shard = Shard(partial, record, self._form, writable=True)
                for part, row in zip(batch, begins, strict=True):
                    shard.write(row, part.stored)
            records.append(record)
            entries += [part.entry(number, row) for part, row in zip(batch, begins, strict=True)]
        return records, entries
