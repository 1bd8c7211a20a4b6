"""The feature store: put pictures' layers, read them back, survive anything in between.

Shape suffixes: B pictures, L layers, T tokens, C channels, M mixtures.
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clasp_calib.cache import portable_index as journal
from clasp_calib.cache.disk import checksums
from clasp_calib.cache.feature_options import SHARD_BYTES, Durability, Layout
from clasp_calib.cache.filesystem import filesystem_of, maps_safely
from clasp_calib.cache.index import FILE as INDEX_FILE
from clasp_calib.cache.index import IndexEntry
from clasp_calib.cache.kernels import mixtures
from clasp_calib.cache.open_store import Damage, OpenStore
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.portable_index import open_index
from clasp_calib.cache.precision import Stored, kept_as
from clasp_calib.cache.shard import RAGGED, REPAIR, Form
from clasp_calib.cache.writer import Writer
from clasp_calib.common.errors import CacheError

__all__ = ["Damage", "FeatureStore"]

FORMAT = "3"
_INHERITED: list[OpenStore] = []
"""What a parent process had open. SQLite forbids using and closing it after a fork, so it is kept."""


class FeatureStore:
    """Features of pictures at vision layers, [T, C] each, keyed by the pictures' content.

    A reader opens its files when it first needs them, once a process, so it may be handed to forked or
    spawned DataLoader workers. A writer belongs to the process that opened it, and reads too.
    """

    def __init__(self, root: Path, layers: tuple[int, ...], meta: Mapping[str, str], writer: Writer | None = None):
        """Use `open`."""
        self.root = root
        self.encoder = meta["encoder"]
        """Fingerprint of the encoder that the features come from."""
        self.form = Form.of(meta)
        self.precision = self.form.precision
        """How they are kept."""
        self.id = meta["id"]
        """Of this cache; each shard bears it."""
        self._layers = layers
        self._writer = writer
        self._writable = writer is not None
        self._opened: OpenStore | None = None
        self._verified: set[tuple[int, int, int]] = set()

    @classmethod
    def open(
        cls,
        root: Path,
        mode: Literal["r", "w"] = "r",
        *,
        encoder: str | None = None,
        layers: Sequence[int] = (),
        shape: tuple[int | None, int] | None = None,
        precision: str | None = None,
        shard_bytes: int = SHARD_BYTES,
        durability: Durability = "process",
        layout: Layout = "auto",
    ) -> Self:
        """Open the store in the directory ``root``.

        Args:
            root: the directory; a writer creates it.
            mode: ``"r"`` or ``"w"``.
            encoder: fingerprint of the encoder; a writer must give it, a reader may, to be sure.
            layers: the layers to work with, as ``hidden_states`` counts them; a writer must give them.
            shape: (T, C), T None where pictures differ in their tokens; a writer must give it.
            precision: how slabs are kept, see `kept_as`; float16 for a new store, None takes what it has.
            shard_bytes: size of a shard in bytes; at least one picture goes into each.
            durability: what an acknowledged picture survives: ``"process"`` a kill, ``"power"`` a power cut too.
            layout: of a new store: ``"direct"`` is read at the speed of memory and needs a local file system,
                ``"portable"`` works on any; ``"auto"`` takes the first where it can, and what is there already.

        Raises:
            CacheError: there is nothing to read, somebody else writes, or the store was made with another
                encoder, for other shapes or in another precision.
        """
        root, layers = Path(root), tuple(dict.fromkeys(layers))
        if mode == "r":
            index = open_index(root)
            meta = index.meta()
            index.close()
            _check(root, meta, encoder, shape, precision)
            return cls(root, layers, meta)
        if encoder is None or not layers or shape is None:
            raise CacheError(f"a writer needs encoder, layers and shape; got {encoder!r}, {layers}, {shape!r}")
        meta = {
            "format": FORMAT,
            "id": uuid.uuid4().hex,
            "encoder": encoder,
            "tokens": RAGGED if shape[0] is None else str(shape[0]),
            "channels": str(shape[1]),
            "precision": kept_as(precision or "float16").name,
        }
        writer = Writer(
            root,
            layers,
            meta,
            lambda found: _check(root, found, encoder, shape, precision),
            shard_bytes,
            durability,
            portable=_portable(root, layout),
        )
        return cls(root, layers, writer.meta, writer)

    @staticmethod
    def there(root: Path) -> bool:
        """Whether there is a store in ``root``, of whatever encoder or format."""
        return (root / INDEX_FILE).is_file() or journal.there(root)

    @classmethod
    def reopen(cls, root: Path) -> Self:
        """Open a store for writing as it is: with the encoder, shape, precision and layers that it has.

        Raises:
            CacheError: as for `open`.
        """
        with cls.open(root) as known:
            given = (known.encoder, known.layers or (0,), known.shape)
        encoder, layers, shape = given
        return cls.open(root, "w", encoder=encoder, layers=layers, shape=shape)

    @property
    def shape(self) -> tuple[int | None, int]:
        """(T, C); T is None where pictures differ in their tokens."""
        return self.form.tokens, self.form.channels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Bring everything to the disk and let the next writer in. A reader that is used again reopens."""
        if self._writer is not None and self._writer.opened.process == os.getpid():
            writer, self._writer = self._writer, None
            writer.close()
        if self._opened is not None and self._opened.process == os.getpid():
            opened, self._opened = self._opened, None
            opened.index.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._writable:
            raise CacheError(f"the writer of {self.root} cannot move to another process; open a reader there")
        return {**self.__dict__, "_opened": None, "_verified": set()}

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it was opened with; if with none, all that it holds of any picture, ascending."""
        if self._layers:
            return self._layers
        index = self._reading().index
        filled = index.filled_shards()
        held = {layer for shard in index.shards().values() if shard.id in filled for layer in shard.layers}
        return tuple(sorted(held))

    def pictures(self) -> list[str]:
        """Every picture of which a layer is there."""
        return self._reading().index.keys()

    def missing(self, keys: Iterable[str], layers: Sequence[int] | None = None) -> list[str]:
        """Those of ``keys``, each once and in order, that lack one of ``layers`` (None: of `layers`)."""
        wanted, opened = self.layers if layers is None else tuple(layers), self._reading()
        return [key for key in dict.fromkeys(keys) if opened.lacking(key, wanted)]

    def reserve(self, keys: Iterable[str]) -> None:
        """Say which pictures are going to be put, so that no shard is made larger than they need."""
        self._writing().reserve(keys)

    def put(self, keys: Sequence[str], features: Sequence[Stored], origins: Sequence[Origin] | None = None) -> int:
        """Store pictures; when this returns, killing the process does not lose them.

        What is there already is left alone; of a picture that has some of the layers, only the others are
        written.

        Args:
            keys: content hashes of pictures.
            features: of each, made by `Precision.encode`; L in the order of `layers`.
            origins: of each; None where each is one image that needs no sizes.

        Returns:
            Number of pictures that were written to.

        Raises:
            CacheError: the features have another shape or type than the store's, or the disk is full.
        """
        return self._writing().put(keys, features, [Origin()] * len(keys) if origins is None else origins)

    def origin(self, key: str) -> Origin:
        """How a picture's tokens are arranged, which is what projecting them needs to know.

        Raises:
            CacheError: the picture is not there.
        """
        return Origin.from_json(self._any_entry(key).origin)

    def tokens(self, key: str) -> int:
        """T of a picture.

        Raises:
            CacheError: the picture is not there.
        """
        return self._any_entry(key).tokens

    def read(self, key: str, layers: Sequence[int], verify: bool = True) -> Tensor:
        """Read a picture's layers into memory of their own.

        Args:
            key: the picture's content hash.
            layers: which, in the order that they are wanted.
            verify: compare each slab with its checksum.

        Returns:
            [len(layers), T, C] in what `Precision.decode` gives.

        Raises:
            CacheError: the picture or a layer of it is not there, or is damaged.
        """
        [(_, entry, _), *_] = places = self._places(key, layers)
        stored = self.precision.empty(len(layers), entry.tokens, self.form.channels)
        self.read_into(stored, key, layers, verify, places)
        return self.precision.decode(stored)

    def read_into(
        self,
        out: Stored,
        key: str,
        layers: Sequence[int],
        verify: bool = True,
        places: "list[tuple[int, IndexEntry, int]] | None" = None,
    ) -> None:
        """`read` without decoding, into memory that is there, pinned for instance; see `Precision.empty`."""
        opened = self._reading()
        for number, (layer, entry, position) in enumerate(places or self._places(key, layers)):
            part = out.at(slice(number, number + 1))
            shard = opened.shard(entry.shard)
            shard.read(entry, position, part)
            if verify and checksums(part) != entry.checksum(position):
                raise self._damage(layer, key, entry)

    def read_batch(
        self, outs: Sequence[Stored], keys: Sequence[str], layers: Sequence[int], verify: bool = True, threads: int = 4
    ) -> None:
        """`read_into` for several pictures at once, from several threads: a disk serves them side by side.

        Raises:
            CacheError: a picture or a layer of one is not there, or is damaged.
        """
        self.prefetch(keys, layers)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda out, key: self.read_into(out, key, layers, verify), outs, keys):
                pass

    def batches(
        self,
        keys: Sequence[str],
        layers: Sequence[int],
        size: int,
        *,
        verify: bool = True,
        threads: int = 4,
        pinned: bool | None = None,
    ) -> Iterator[list[Stored]]:
        """Pictures in batches, of which the next is read while you work on one.

        Args:
            keys: of the pictures, in the order in which they are wanted.
            layers: which, in the order that they are wanted.
            size: pictures of a batch.
            verify: compare each slab with its checksum.
            threads: that read side by side.
            pinned: read into page-locked memory; None does so where there is a GPU.

        Yields:
            For each picture of a batch what `read_into` gives, in memory that the batch after the next overwrites: copy
            it, or wait for the copy to the GPU, before you ask for that.

        Raises:
            CacheError: a picture or a layer of one is not there, or is damaged; there is no pinned memory.
        """
        pinned = torch.cuda.is_available() if pinned is None else pinned
        rooms: tuple[dict[int, list[Stored]], ...] = ({}, {})

        def read(number: int) -> list[Stored]:
            chosen = keys[number * size : (number + 1) * size]
            free = {tokens: list(made) for tokens, made in rooms[number % 2].items()}
            outs = []
            for key in chosen:
                tokens = self.tokens(key)
                if not free.get(tokens):
                    made = self.precision.empty(len(layers), tokens, self.form.channels, pinned)
                    rooms[number % 2].setdefault(tokens, []).append(made)
                    free.setdefault(tokens, []).append(made)
                outs.append(free[tokens].pop())
            self.read_batch(outs, chosen, layers, verify, threads)
            return outs

        count = -(-len(keys) // size)
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(read, 0) if count else None
            for number in range(count):
                assert following is not None
                batch = following.result()
                following = ahead.submit(read, number + 1) if number + 1 < count else None
                yield batch

    def views(self, key: str, layers: Sequence[int], verify: bool = True) -> list[Stored]:
        """A picture's slabs as read-only arrays over the mapped shard: nothing is copied.

        Args:
            key: the picture's content hash.
            layers: which, in the order that they are wanted.
            verify: compare a slab with its checksum the first time that this store views it.

        Raises:
            CacheError: the picture or a layer of it is not there, or is damaged.
        """
        opened = self._reading()
        found = []
        for layer, entry, position in self._places(key, layers):
            slab = opened.shard(entry.shard).view(entry, position)
            place = (entry.shard, entry.row, position)
            if verify and place not in self._verified:
                if checksums(slab) != entry.checksum(position):
                    raise self._damage(layer, key, entry)
                self._verified.add(place)
            found.append(slab)
        return found

    def fused(
        self,
        key: str,
        layers: Sequence[int],
        weights_ML: npt.NDArray[np.float32],
        verify: bool = True,
        out_MTC: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Mixtures of a picture's layers, summed straight from the mapped shard.

        Args:
            key: the picture's content hash.
            layers: which.
            weights_ML: float32, one row a mixture, one column a layer; a layer of weight 0 is not read.
            verify: as for `views`.
            out_MTC: where to write; what is used again need not be fetched from the system again.

        Returns:
            [M, T, C] float32.

        Raises:
            CacheError: the picture or a layer of it is not there, or is damaged.
        """
        return mixtures(self.views(key, layers, verify), weights_ML, self.precision.name, out_MTC)

    def prefetch(self, keys: Iterable[str], layers: Sequence[int]) -> None:
        """Let the system begin to read what will be wanted next; does not wait."""
        opened = self._reading()
        for key in keys:
            for _, entry, position in self._places(key, layers):
                opened.shard(entry.shard).prefetch(entry, position)

    def verify(self) -> Iterator[Damage]:
        """Read everything, and yield each slab that is not what was written."""
        for _, damages in self._reading().damaged():
            yield from damages

    def forget(self, keys: Iterable[str]) -> int:
        """Forget pictures; shards in which nothing is left are removed, `compact` gives other room back.

        Returns:
            Number of entries that were forgotten.

        Raises:
            CacheError: the store is not open for writing.
        """
        index = self._writing().opened.index
        entries = [entry for key in keys for entry in index.entries(key)]
        self._writing().forget(entries)
        return len(entries)

    def compact(self) -> None:
        """Give room back that `forget` left: what sparsely filled shards hold moves together.

        Raises:
            CacheError: the store is not open for writing, or the disk has no room for one more shard.
        """
        self._writing().compact()

    def drop_damaged(self) -> list[Damage]:
        """Forget each slab that is damaged, so that it, and nothing else, is written again.

        A shard that is missing, cut short or of another cache is forgotten whole.

        Returns:
            What was damaged.

        Raises:
            CacheError: the store is not open for writing.
        """
        return self._writing().drop_damaged()

    def _reading(self) -> OpenStore:
        if self._writable:
            return self._writing().opened
        if self._opened is not None and self._opened.process != os.getpid():
            _INHERITED.append(self._opened)
            self._opened = None
        if self._opened is None:
            self._opened = OpenStore(self.root, self.form, open_index(self.root))
        return self._opened

    def _any_entry(self, key: str) -> IndexEntry:
        for entry, _ in self._reading().places(key).values():
            return entry
        raise CacheError(f"the cache {self.root} has nothing of picture {key}; run cache-features on a table with it")

    def _places(self, key: str, layers: Sequence[int]) -> list[tuple[int, IndexEntry, int]]:
        """Layer, entry, and position in the entry's shard, for each of ``layers``."""
        places = self._reading().places(key)
        absent = [layer for layer in layers if layer not in places]
        if absent or not layers:
            raise CacheError(
                f"the cache {self.root} has {_listed(places)} of picture {key}, asked for {_listed(absent)}; "
                "run cache-features with these layers on the table that has this picture"
            )
        return [(layer, *places[layer]) for layer in layers]

    def _damage(self, layer: int, key: str, entry: IndexEntry) -> CacheError:
        shard = self._reading().shard(entry.shard)
        return CacheError(
            f"layer {layer} of picture {key} in {shard.path} (row {entry.row}) is not what was written; {REPAIR}"
        )

    def _writing(self) -> Writer:
        if self._writer is None:
            raise CacheError(f"the cache {self.root} is not open for writing; open it with mode 'w'")
        self._writer.check_process()
        return self._writer


def _portable(root: Path, layout: Layout) -> bool:
    """Whether a store that is opened for writing is, or will be, a portable one."""
    is_there = journal.there(root)
    if not FeatureStore.there(root):
        return not maps_safely(root) if layout == "auto" else layout == "portable"
    if layout != "auto" and (layout == "portable") != is_there:
        raise CacheError(
            f"the cache {root} is {'portable' if is_there else 'direct'}, asked for {layout}; "
            "leave the mode out, or give another directory"
        )
    if not is_there and not maps_safely(root):
        raise CacheError(
            f"the cache {root} can be read but not written to on the file system {filesystem_of(root)}; "
            "give another directory, in which a portable cache is made"
        )
    return is_there


def _check(
    root: Path,
    meta: Mapping[str, str],
    encoder: str | None,
    shape: tuple[int | None, int] | None,
    precision: str | None,
) -> None:
    if not meta:
        raise CacheError(f"the cache {root} is empty; fill it with cache-features")
    if meta["format"] != FORMAT:
        raise CacheError(
            f"the cache {root} has format {meta['format']}, this version reads {FORMAT}; "
            "use the version that wrote it, or give another directory"
        )
    if encoder is not None and meta["encoder"] != encoder:
        raise CacheError(
            f"the cache {root} was made with the encoder [{meta['encoder']}], asked for [{encoder}]; "
            "give the model, dtype and processor that it was made with, or another directory"
        )
    if shape is not None and (meta["tokens"], meta["channels"]) != (str(shape[0] or RAGGED), str(shape[1])):
        raise CacheError(
            f"the cache {root} holds {meta['tokens']} tokens of {meta['channels']} channels a layer, "
            f"asked for {shape[0] or RAGGED} of {shape[1]}; give another directory"
        )
    if precision is not None and meta["precision"] != precision:
        raise CacheError(
            f"the cache {root} keeps features as {meta['precision']}, asked for {precision}; "
            "leave the precision out, or give another directory"
        )


def _listed(layers: Iterable[int]) -> str:
    numbers = ", ".join(str(layer) for layer in layers)
    return f"layers {numbers}" if numbers else "nothing"
