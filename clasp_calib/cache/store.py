"""Reading a feature store: which pictures are there, and their layers as they were put.

Shape suffixes: L layers, T tokens, C channels, M mixtures.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clasp_calib.cache import portable_index
from clasp_calib.cache.form import Form, check_meta
from clasp_calib.cache.index import FILE as INDEX_FILE
from clasp_calib.cache.mixing import mixtures
from clasp_calib.cache.open_store import Damage, OpenStore
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.portable_index import open_index
from clasp_calib.cache.records import IndexEntry
from clasp_calib.common.errors import CacheError

T = TypeVar("T")
_PATIENCE = 8
"""Commits of another process during one read after which an error is believed."""
_INHERITED: list[OpenStore] = []
"""What a parent process had open. SQLite forbids using and closing it after a fork, so it is kept."""


class FeatureStore:
    """Features of pictures at vision layers, [T, C] each, keyed by the pictures' content.

    It opens its files when it first needs them, once a process, so it may be handed to forked or spawned DataLoader
    workers. `clasp_calib.cache.writer.FeatureWriter` is a store that can be changed.
    """

    def __init__(self, root: Path, meta: Mapping[str, str]):
        """Use `open`."""
        self.root = root
        self.encoder = meta["encoder"]
        """Fingerprint of the encoder that the features come from."""
        self.form = Form.of(root, meta)
        self.precision = self.form.precision
        """How they are kept."""
        self._opened: OpenStore | None = None

    @classmethod
    def open(cls, root: Path, encoder: str | None = None) -> "FeatureStore":
        """Open the store in the directory ``root`` for reading.

        Args:
            root: the directory.
            encoder: fingerprint of the encoder that must have made it; None takes any.

        Raises:
            CacheError: there is nothing to read, or another encoder made it.
        """
        root = Path(root)
        index = open_index(root)
        meta = index.meta()
        index.close()
        check_meta(root, meta, encoder)
        return FeatureStore(root, meta)

    @staticmethod
    def there(root: Path) -> bool:
        """Whether there is a store in ``root``, of whatever encoder or format."""
        return os.path.lexists(root / INDEX_FILE) or portable_index.there(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files; when it is used again it opens them again."""
        if self._opened is not None and self._opened.process == os.getpid():
            opened, self._opened = self._opened, None
            opened.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that it holds of any picture, ascending."""
        index = self.opened.index
        filled = index.filled_shards()
        held = {layer for shard in index.shards().values() if shard.id in filled for layer in shard.layers}
        return tuple(sorted(held))

    def pictures(self) -> list[str]:
        """Every picture of which a layer is there."""
        return self.opened.index.keys()

    def missing(self, keys: Iterable[str], layers: Sequence[int] | None = None) -> list[str]:
        """Those of ``keys``, each once and in order, that lack one of ``layers`` (None: of `layers`)."""
        wanted, opened = self.layers if layers is None else tuple(layers), self.opened
        return [key for key in dict.fromkeys(keys) if self._steadily(partial(opened.lacking, key, wanted))]

    def origin(self, key: str) -> Origin:
        """How a picture's tokens are arranged, which is what projecting them needs to know.

        Raises:
            CacheError: the picture is not there.
        """
        text = self._any_entry(key).origin
        try:
            return Origin.from_json(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise CacheError(
                f"what the cache {self.root} says of the tokens of picture {key} is damaged ({text[:60]!r}); "
                "put a copy of its index back, or use another directory and run cache-features again"
            ) from error

    def tokens(self, key: str) -> int:
        """T of a picture.

        Raises:
            CacheError: the picture is not there.
        """
        return self._any_entry(key).tokens

    def read(self, key: str, layers: Sequence[int]) -> Tensor:
        """Read a picture's layers, and compare what was read with its checksums.

        Args:
            key: the picture's content hash.
            layers: which, in the order that they are wanted.

        Returns:
            [len(layers), T, C] in what `Precision.decode` gives.

        Raises:
            DamagedError: a layer is not what was written.
            CacheError: the picture or a layer of it is not there, or cannot be read now.
        """
        return self._steadily(lambda: self._read(key, layers))

    def _read(self, key: str, layers: Sequence[int]) -> Tensor:
        places, opened = self._places(key, layers), self.opened
        shards = [opened.shard(entry.shard) for _, entry, _ in places]  # they have room for so many tokens
        stored = self.form.empty(len(layers), places[0][1].tokens)
        for number, (shard, (_, entry, position)) in enumerate(zip(shards, places, strict=True)):
            shard.read(entry, position, stored.at(slice(number, number + 1)))
        return self.precision.decode(stored)

    def fused(self, key: str, layers: Sequence[int], weights_ML: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Mixtures of a picture's layers, summed from memory whose checksums were compared after it was read.

        Arguments and errors as of `read`, and:

        Args:
            weights_ML: float32, one row a mixture, one column a layer; a layer of weight 0 is not read.

        Returns:
            [M, T, C] float32.
        """

        def mixed() -> npt.NDArray[np.float32]:
            places = self._places(key, layers)
            shape = (places[0][1].tokens, self.form.channels)
            return mixtures(lambda at: self.opened.slab(*places[at][1:]), weights_ML, self.precision, shape)

        return self._steadily(mixed)

    def prefetch(self, keys: Iterable[str], layers: Sequence[int]) -> None:
        """Let the system begin to read what will be wanted next; does not wait."""
        for key in keys:
            self._steadily(partial(self._prefetch, key, layers))

    def _prefetch(self, key: str, layers: Sequence[int]) -> None:
        for _, entry, position in self._places(key, layers):
            self.opened.shard(entry.shard).prefetch(entry, position)

    def verify(self) -> Iterator[Damage]:
        """Read everything, and yield each slab that is not what was written."""
        opened = self.opened
        for _, damages in opened.damaged(opened.lost()):
            yield from damages

    @property
    def opened(self) -> OpenStore:
        """What this process has open of it."""
        if self._opened is not None and self._opened.process != os.getpid():
            _INHERITED.append(self._opened)
            self._opened = None
        if self._opened is None:
            self._opened = OpenStore(self.root, self.form, open_index(self.root))
        return self._opened

    def _steadily(self, reading: Callable[[], T]) -> T:
        """Read, and again where it fails while another process forgets or moves pictures."""
        for _ in range(_PATIENCE):
            version = self.opened.index.version()
            try:
                return reading()
            except CacheError:
                if self.opened.index.version() == version:
                    raise
        return reading()

    def _any_entry(self, key: str) -> IndexEntry:
        for entry, _ in self._steadily(lambda: self.opened.places(key)).values():
            return entry
        raise CacheError(f"the cache {self.root} has nothing of picture {key}; run cache-features on a table with it")

    def _places(self, key: str, layers: Sequence[int]) -> list[tuple[int, IndexEntry, int]]:
        """Layer, entry, and position in the entry's shard, for each of ``layers``."""
        places = self.opened.places(key)
        absent = [layer for layer in layers if layer not in places]
        if absent or not layers:
            raise CacheError(
                f"the cache {self.root} has {_listed(places)} of picture {key}, asked for {_listed(absent)}; "
                "run cache-features with these layers on the table that has this picture"
            )
        found = [(layer, *places[layer]) for layer in layers]
        if len({entry.tokens for _, entry, _ in found}) > 1:
            raise CacheError(
                f"the index of the cache {self.root} is damaged: layers of picture {key} differ in their tokens; "
                "put a copy of it back, or use another directory and run cache-features again"
            )
        return found


def _listed(layers: Iterable[int]) -> str:
    numbers = ", ".join(str(layer) for layer in layers)
    return f"layers {numbers}" if numbers else "nothing"
