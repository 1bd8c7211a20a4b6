"""Where the next picture goes: into free rows of shards that are filled in place, or into a shard of its batch.

Both write a picture's bytes before anybody learns of them; the caller then commits what they return.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from clasp_calib.cache.disk import checksums
from clasp_calib.cache.feature_options import Durability
from clasp_calib.cache.index import ABSENT, Index, IndexEntry, ShardRecord
from clasp_calib.cache.portable import create_portable_shard
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.shard import Form, Shard, create_shard


class PicturePart(NamedTuple):
    """Layers of one picture that are to be written together."""

    key: str
    layers: tuple[int, ...]
    stored: Stored
    """One slab each; C-contiguous."""
    origin: str
    checksums: bytes


class Written(NamedTuple):
    """What is on the disk and is now to be committed."""

    shards: Sequence[ShardRecord]
    entries: Sequence[IndexEntry]


class Filling(Protocol):
    """Writes parts of pictures, and keeps in mind which room is left."""

    def expect(self, layers: Mapping[tuple[int, ...], int]) -> None:
        """Be told how many pictures with which layers are going to come."""
        ...

    def write(self, parts: Sequence[PicturePart], avoid: Collection[int] = ()) -> Written:
        """Write parts, none of them into the shards to ``avoid``.

        Raises:
            CacheError: the disk is full or failed.
        """
        ...

    def mend(self, entry: IndexEntry, record: ShardRecord, slabs: Mapping[int, Stored]) -> IndexEntry | None:
        """Write slabs, by position, into the holes of an entry; None where a shard cannot be changed."""
        ...

    def committed(self) -> None:
        """Be told that what was written is committed."""
        ...

    def start_anew(self) -> None:
        """Work out anew which room is left, from what the index says now."""
        ...

    def close(self) -> None:
        """Bring everything to the disk."""
        ...


@dataclass
class _Place:
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


class DirectFilling:
    """`Filling` of `clasp_calib.cache.shard.Shard`: slabs are written into reserved room, one picture after another."""

    def __init__(
        self,
        root: Path,
        form: Form,
        index: Index,
        identity: Mapping[str, str],
        shard_bytes: int,
        durability: Durability,
    ):
        self._root, self._form, self._index, self._identity = root, form, index, identity
        self._shard_bytes, self._durability = shard_bytes, durability
        self._filling: dict[int, _Place] = {}
        self._candidates: list[ShardRecord] | None = None
        """The shards that may have free rows; None if only the index knows."""
        self._expected: Counter[tuple[int, ...]] = Counter()

    def expect(self, layers: Mapping[tuple[int, ...], int]) -> None:
        """See `Filling`; no shard is made larger than these pictures need."""
        self._expected = Counter(layers)

    def write(self, parts: Sequence[PicturePart], avoid: Collection[int] = ()) -> Written:
        """See `Filling`."""
        entries, taken = [], []
        try:
            for part in parts:
                tokens = part.stored.data_LTC.shape[1]
                place, row = self._place(part.layers, len(part.layers) * self._form.stride(tokens), avoid)
                taken.append(place)
                self._expected[part.layers] -= 1
                place.shard.write(row, part.stored)
                entries.append(IndexEntry(part.key, place.shard.record.id, row, tokens, part.origin, part.checksums))
            if self._durability == "power":
                for place in {place.shard.record.id: place for place in taken}.values():
                    place.shard.sync(data_only=True)
        except BaseException:
            self._expected.update(place.shard.record.layers for place in taken)
            raise
        return Written((), entries)

    def mend(self, entry: IndexEntry, record: ShardRecord, slabs: Mapping[int, Stored]) -> IndexEntry | None:
        """See `Filling`."""
        shard = Shard(self._root, record, self._form, writable=True)
        for position, slab in slabs.items():
            shard.write(entry.row + position * self._form.stride(entry.tokens), slab)
        if self._durability == "power":
            shard.sync(data_only=True)
        return entry.with_checksums({position: checksums(slab) for position, slab in slabs.items()})

    def committed(self) -> None:
        """See `Filling`; shards that are full are brought to the disk."""
        for number, place in list(self._filling.items()):
            if not place.free:
                place.shard.sync()
                del self._filling[number]

    def start_anew(self) -> None:
        """See `Filling`."""
        self._filling.clear()
        self._candidates = None

    def close(self) -> None:
        """See `Filling`."""
        for place in self._filling.values():
            place.shard.sync()
        self._filling.clear()

    def _place(self, layers: tuple[int, ...], rows: int, avoid: Collection[int]) -> tuple[_Place, int]:
        """Free rows in a shard of exactly these layers: one that is there, or a new one."""
        if self._candidates is None:
            self._candidates = list(self._index.shards().values())
        for record in [known for known in self._candidates if known.layers == layers and known.id not in avoid]:
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

    def _open(self, record: ShardRecord) -> _Place:
        free, end = [], 0
        for entry in self._index.entries_of(record.id):
            if entry.row > end:
                free.append((end, entry.row - end))
            end = entry.row + len(record.layers) * self._form.stride(entry.tokens)
        if record.rows > end:
            free.append((end, record.rows - end))
        return _Place(Shard(self._root, record, self._form, writable=True), free)

    def _new_shard(self, layers: tuple[int, ...], rows: int) -> ShardRecord:
        """A shard for pictures of about ``rows`` rows: no larger than those that are expected need."""
        number = self._index.next_shard()
        file = f"shard-{number:05d}.h5"
        precision, channels = self._form.precision, self._form.channels
        pictures = self._shard_bytes // (rows * (precision.data_row(channels) + precision.scale_row(channels)))
        if (expected := self._expected[layers]) > 0:
            pictures = min(pictures, expected)
        room = max(pictures, 1) * rows
        offset, scale_offset = create_shard(self._root / file, room, layers, self._form, self._identity)
        record = ShardRecord(number, file, offset, scale_offset, room, layers)
        self._index.change(shards=[record])
        return record


class PortableFilling:
    """`Filling` of `clasp_calib.cache.portable.PortableShard`: every batch becomes a shard, which is then complete."""

    def __init__(self, root: Path, form: Form, index: Index, identity: Mapping[str, str]):
        self._root, self._form, self._index, self._identity = root, form, index, identity

    def expect(self, layers: Mapping[tuple[int, ...], int]) -> None:
        """See `Filling`; a shard is as large as its batch."""

    def write(self, parts: Sequence[PicturePart], avoid: Collection[int] = ()) -> Written:
        """See `Filling`."""
        records: list[ShardRecord] = []
        entries: list[IndexEntry] = []
        for layers in dict.fromkeys(part.layers for part in parts):
            batch = [part for part in parts if part.layers == layers]
            number = self._index.next_shard() + len(records)
            file = f"shard-{number:05d}.h5"
            pictures = {part.key: part.stored for part in batch}
            create_portable_shard(self._root / file, pictures, layers, self._form, self._identity)
            row = 0
            for part in batch:
                tokens = part.stored.data_LTC.shape[1]
                entries.append(IndexEntry(part.key, number, row, tokens, part.origin, part.checksums))
                row += len(layers) * self._form.stride(tokens)
            records.append(ShardRecord(number, file, 0, None, row, layers))
        return Written(records, entries)

    def mend(self, entry: IndexEntry, record: ShardRecord, slabs: Mapping[int, Stored]) -> IndexEntry | None:
        """See `Filling`."""
        return None

    def committed(self) -> None:
        """See `Filling`."""

    def start_anew(self) -> None:
        """See `Filling`."""

    def close(self) -> None:
        """See `Filling`."""


def part_of(key: str, wanted: tuple[int, ...], stored: Stored, layers: tuple[int, ...], origin: str) -> PicturePart:
    """The part of a picture that is wanted.

    Args:
        key: of the picture.
        wanted: its layers that are to be written.
        stored: slabs of all ``layers``.
        layers: those that there are slabs of.
        origin: see `IndexEntry`.
    """
    part = _layers_of(stored, [layers.index(layer) for layer in wanted])
    return PicturePart(key, wanted, part, origin, checksums(part))


def _layers_of(stored: Stored, positions: list[int]) -> Stored:
    """Some layers of a picture, C-contiguous; without a copy where it is all of them in their order."""
    if positions == list(range(len(stored.data_LTC))) and stored.data_LTC.flags.c_contiguous:
        return stored
    return stored.at(positions)


def holes(entry: IndexEntry, layers: Sequence[int]) -> dict[int, int]:
    """Layer -> position of the slabs of an entry that were dropped."""
    return {layer: position for position, layer in enumerate(layers) if entry.checksum(position) == ABSENT}
