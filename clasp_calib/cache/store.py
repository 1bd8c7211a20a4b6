"""The feature store: put pictures' layers, read them back, survive anything in between.

Shape suffixes: B pictures, L layers, T tokens, C channels.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from clasp_calib.cache.index import Index
from clasp_calib.cache.opened import Damage, Opened
from clasp_calib.cache.shard import REPAIR, Halves, checksum
from clasp_calib.cache.writer import Writer
from clasp_calib.common.errors import CacheError

__all__ = ["SHARD_BYTES", "Damage", "FeatureStore"]

FORMAT = "1"
SHARD_BYTES = 256 * 2**20
_INHERITED: list[Opened] = []
"""What a parent process had open. SQLite forbids using and closing it after a fork, so it is kept."""


class FeatureStore:
    """Features of pictures at vision layers, float16 [T, C] each, keyed by the pictures' content.

    A reader opens its files when it first needs them, once a process, so it may be handed to forked or
    spawned DataLoader workers. A writer belongs to the process that opened it, and reads too.
    """

    def __init__(self, root: Path, layers: tuple[int, ...], meta: Mapping[str, str], writer: Writer | None = None):
        """Use `open`."""
        self.root = root
        self.encoder = meta["encoder"]
        """Fingerprint of the encoder that the features come from."""
        self.shape = (int(meta["tokens"]), int(meta["channels"]))
        """(T, C)."""
        self._layers = layers
        self._writer = writer
        self._writable = writer is not None
        self._opened: Opened | None = None

    @classmethod
    def open(
        cls,
        root: Path,
        mode: Literal["r", "w"] = "r",
        *,
        encoder: str | None = None,
        layers: Sequence[int] = (),
        shape: tuple[int, int] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> Self:
        """Open the store in the directory ``root``.

        Args:
            root: the directory; a writer creates it.
            mode: ``"r"`` or ``"w"``.
            encoder: fingerprint of the encoder; a writer must give it, a reader may, to be sure.
            layers: the layers to work with, as ``hidden_states`` counts them; a writer must give them.
            shape: (T, C); a writer must give it.
            shard_bytes: size of a shard in bytes; at least one picture goes into each.

        Raises:
            CacheError: there is nothing to read, somebody else writes, or the store was made with another
                encoder or for other shapes.
        """
        root, layers = Path(root), tuple(dict.fromkeys(layers))
        if mode == "r":
            index = Index(root)
            meta = index.meta()
            index.close()
            _check(root, meta, encoder, shape)
            return cls(root, layers, meta)
        if encoder is None or not layers or shape is None:
            raise CacheError(f"a writer needs encoder, layers and shape; got {encoder!r}, {layers}, {shape!r}")
        writer = Writer(root, layers, shape, encoder, shard_bytes)
        try:
            index = writer.opened.index
            if not index.meta():
                tokens, channels = (str(size) for size in shape)
                index.initialise({"format": FORMAT, "encoder": encoder, "tokens": tokens, "channels": channels})
            _check(root, index.meta(), encoder, shape)
            writer.clear_leftovers()
            return cls(root, layers, index.meta(), writer)
        except BaseException:
            writer.close()
            raise

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
        return {**self.__dict__, "_opened": None}

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it was opened with; if with none, all that it holds of any picture, ascending."""
        if self._layers:
            return self._layers
        index = self._reading().index
        filled = index.filled_shards()
        held = {layer for shard in index.shards().values() if shard.id in filled for layer in shard.layers}
        return tuple(sorted(held))

    def missing(self, keys: Iterable[str], layers: Sequence[int] | None = None) -> list[str]:
        """Those of ``keys``, each once and in order, that lack one of ``layers`` (None: of `layers`)."""
        wanted, opened = self.layers if layers is None else tuple(layers), self._reading()
        return [key for key in dict.fromkeys(keys) if opened.lacking(key, wanted)]

    def reserve(self, keys: Iterable[str]) -> None:
        """Say which pictures are going to be put, so that no shard is made larger than they need."""
        self._writing().reserve(keys)

    def put(self, keys: Sequence[str], features_BLTC: Halves) -> int:
        """Store pictures; when this returns, killing the process does not lose them.

        What is there already is left alone; of a picture that has some of the layers, only the others are
        written.

        Args:
            keys: content hashes of B pictures.
            features_BLTC: float16, L in the order of `layers`.

        Returns:
            Number of pictures that were written to.

        Raises:
            CacheError: the features have another shape or dtype than the store's, or the disk is full.
        """
        return self._writing().put(keys, features_BLTC)

    def read(self, key: str, layers: Sequence[int], verify: bool = True) -> Halves:
        """Read a picture's layers.

        Args:
            key: the picture's content hash.
            layers: which, in the order that they are wanted.
            verify: compare each slab with its checksum.

        Returns:
            [len(layers), T, C] float16.

        Raises:
            CacheError: the picture or a layer of it is not there, or is damaged.
        """
        opened = self._reading()
        places = opened.places(key)
        if absent := [layer for layer in layers if layer not in places]:
            raise CacheError(
                f"the cache {self.root} has {_listed(places)} of picture {key}, asked for {_listed(absent)}; "
                "run cache-features with these layers on the table that has this picture"
            )
        features_LTC = np.empty((len(layers), *self.shape), dtype=np.float16)
        for layer, slab_TC in zip(layers, features_LTC, strict=True):
            entry, position = places[layer]
            shard = opened.shard(entry.shard)
            shard.read(entry.slot, position, slab_TC)
            if verify and checksum(slab_TC) != entry.checksum(position):
                raise CacheError(
                    f"layer {layer} of picture {key} in {shard.path} (slot {entry.slot}) "
                    f"is not what was written; {REPAIR}"
                )
        return features_LTC

    def verify(self) -> Iterator[Damage]:
        """Read everything, and yield each slab that is not what was written."""
        for _, damages in self._reading().damaged():
            yield from damages

    def drop_damaged(self) -> list[Damage]:
        """Forget each picture's entry in a shard where a slab of it is damaged, so that it is encoded again.

        A shard that is missing or cut short is forgotten whole.

        Returns:
            What was damaged.

        Raises:
            CacheError: the store is not open for writing.
        """
        return self._writing().drop_damaged()

    def _reading(self) -> Opened:
        if self._writable:
            return self._writing().opened
        if self._opened is not None and self._opened.process != os.getpid():
            _INHERITED.append(self._opened)
            self._opened = None
        if self._opened is None:
            self._opened = Opened(self.root, self.shape, Index(self.root))
        return self._opened

    def _writing(self) -> Writer:
        if self._writer is None:
            raise CacheError(f"the cache {self.root} is not open for writing; open it with mode 'w'")
        self._writer.check_process()
        return self._writer


def _check(root: Path, meta: Mapping[str, str], encoder: str | None, shape: tuple[int, int] | None) -> None:
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
    if shape is not None and (meta["tokens"], meta["channels"]) != (str(shape[0]), str(shape[1])):
        raise CacheError(
            f"the cache {root} holds {meta['tokens']} tokens of {meta['channels']} channels a layer, "
            f"asked for {shape[0]} of {shape[1]}; give another directory"
        )


def _listed(layers: Iterable[int]) -> str:
    numbers = ", ".join(str(layer) for layer in layers)
    return f"layers {numbers}" if numbers else "nothing"
