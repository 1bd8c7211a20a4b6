"""Reading a feature store: which pictures are there, and their layers as they were put.

Shape suffixes: L layers, T tokens, C channels, M mixtures.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clasp_calib.cache import portable_index
from clasp_calib.cache.disk import checksums
from clasp_calib.cache.form import Form, check_meta
from clasp_calib.cache.index import FILE as INDEX_FILE, IndexEntry
from clasp_calib.cache.kernels import mixtures
from clasp_calib.cache.open_store import Damage, OpenStore
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.portable_index import open_index
from clasp_calib.cache.precision import Stored
from clasp_calib.cache.shard import REPAIR
from clasp_calib.common.errors import CacheError

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
        self.form = Form.of(meta)
        self.precision = self.form.precision
        """How they are kept."""
        self._opened: OpenStore | None = None
        self._verified: set[tuple[int, int, int]] = set()

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
        return (root / INDEX_FILE).is_file() or portable_index.there(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files; when it is used again it opens them again."""
        if self._opened is not None and self._opened.process == os.getpid():
            opened, self._opened = self._opened, None
            opened.index.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_verified": set()}

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
        return [key for key in dict.fromkeys(keys) if opened.lacking(key, wanted)]

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
        places = self._places(key, layers)
        stored = self.form.empty(len(layers), places[0][1].tokens)
        self._read(places, stored, verify)
        return self.precision.decode(stored)

    def read_into(self, out: Stored, key: str, layers: Sequence[int], verify: bool = True) -> None:
        """`read` without decoding, into memory that is there; see `Form.empty`."""
        self._read(self._places(key, layers), out, verify)

    def views(self, key: str, layers: Sequence[int], verify: bool = True) -> list[Stored]:
        """A picture's slabs as read-only arrays over the mapped shard: nothing is copied.

        Arguments and errors as of `read`, but that a slab is compared with its checksum only the first time.
        """
        opened = self.opened
        found = []
        for layer, entry, position in self._places(key, layers):
            slab = opened.shard(entry.shard).view(entry, position)
            place = (entry.shard, entry.row, position)
            if verify and place not in self._verified:
                if checksums(slab) != entry.checksum(position):
                    raise self._damage(layer, entry)
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

        Arguments and errors as of `views`, and:

        Args:
            weights_ML: float32, one row a mixture, one column a layer; a layer of weight 0 is not read.
            out_MTC: where to write; what is used again need not be fetched from the system again.

        Returns:
            [M, T, C] float32.
        """
        return mixtures(self.views(key, layers, verify), weights_ML, self.precision.name, out_MTC)

    def prefetch(self, keys: Iterable[str], layers: Sequence[int]) -> None:
        """Let the system begin to read what will be wanted next; does not wait."""
        opened = self.opened
        for key in keys:
            for _, entry, position in self._places(key, layers):
                opened.shard(entry.shard).prefetch(entry, position)

    def verify(self) -> Iterator[Damage]:
        """Read everything, and yield each slab that is not what was written."""
        for _, damages in self.opened.damaged():
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

    def _read(self, places: Sequence[tuple[int, IndexEntry, int]], out: Stored, verify: bool) -> None:
        opened = self.opened
        for number, (layer, entry, position) in enumerate(places):
            part = out.at(slice(number, number + 1))
            opened.shard(entry.shard).read(entry, position, part)
            if verify and checksums(part) != entry.checksum(position):
                raise self._damage(layer, entry)

    def _any_entry(self, key: str) -> IndexEntry:
        for entry, _ in self.opened.places(key).values():
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
        return [(layer, *places[layer]) for layer in layers]

    def _damage(self, layer: int, entry: IndexEntry) -> CacheError:
        shard = self.opened.shard(entry.shard)
        return CacheError(
            f"layer {layer} of picture {entry.key} in {shard.path} (row {entry.row}) is not what was written; {REPAIR}"
        )


def _listed(layers: Iterable[int]) -> str:
    numbers = ", ".join(str(layer) for layer in layers)
    return f"layers {numbers}" if numbers else "nothing"
