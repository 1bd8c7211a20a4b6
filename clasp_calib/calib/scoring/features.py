"""Where the evaluator gets a picture's vision layers from, and the first of such places: the cache.

Shape suffixes: M mixtures, l layers that may be mixed, K those that a deepstack projects, T patch tokens, C width of
the tower.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from clasp_calib.cache.odd import reasons_left_out
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.relevances import Relevances
from clasp_calib.common.contents import image_key, named_with_reasons
from clasp_calib.common.errors import CacheError
from clasp_calib.common.samples import Sample


class Features(Protocol):
    """Mixtures of samples' vision layers. All kinds give the same bits for the same layers, kept in the same precision.

    Of a sample with several pictures each is asked for by itself, see `clasp_calib.common.samples.Sample.alone`.

    The kinds are `CachedFeatures` and `clasp_calib.calib.scoring.live_features.LiveFeatures`;
    `clasp_calib.calib.scoring.feature_sources` chooses.
    """

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that may be mixed, as ``hidden_states`` counts them."""
        ...

    def fused(self, sample: Sample, alpha_Ml: Tensor) -> Tensor:
        """Mixtures of the layers of the sample's picture, ``[M, T, C]`` float32.

        Args:
            sample: has a picture.
            alpha_Ml: weights, one row a mixture, one column each of ``layers``.

        Raises:
            CacheError: the picture is not cached, or damaged.
            InputError: the picture cannot be read.
        """
        ...

    def tapped(self, sample: Sample) -> Tensor:
        """The layers that the model projects beside the mixture, ``[K, T, C]`` float32; see `Origin.deepstack`.

        Raises:
            CacheError: the picture is not cached, or damaged.
            InputError: the picture cannot be read.
        """
        ...

    def origin(self, sample: Sample) -> Origin:
        """What projecting these mixtures takes besides them; see `Origin.project`.

        Raises:
            CacheError: the picture is not cached.
            InputError: the picture cannot be read.
        """
        ...

    def patches(self, sample: Sample) -> int:
        """T of the sample's picture.

        Raises:
            CacheError: the picture is not cached.
            InputError: the picture cannot be read.
        """
        ...

    def relevance(self, sample: Sample, kind: str) -> list[Tensor]:
        """Attention of the vision tower, see `clasp_calib.calib.scoring.relevances.Relevances`.

        Raises:
            InputError: the picture cannot be read.
        """
        ...

    def key(self, sample: Sample) -> str:
        """The content of the sample's pictures, in short: samples of the same pictures have the same."""
        ...

    def check(self, samples: Sequence[Sample]) -> None:
        """Make sure that all samples' pictures are there, before hours of work.

        Raises:
            CacheError: some are not.
            InputError: a picture cannot be read.
        """
        ...


class CachedFeatures:
    """Reads cached layers of samples' pictures.

    Args:
        store: an open feature store.
        layers: the layers to read, as ``hidden_states`` counts them.
        relevances: of the encoder that made them, which a cache does not hold.
        taps: the layers that the model projects beside a mixture.

    Raises:
        CacheError: the store does not hold them.
    """

    def __init__(
        self,
        store: FeatureStore,
        layers: tuple[int, ...],
        relevances: Relevances | None = None,
        taps: Sequence[int] = (),
    ):
        lacking = sorted({*layers, *taps} - set(store.layers))
        if lacking:
            raise CacheError(
                f"the cache holds the layers {store.layers}, not {lacking}; "
                f"add them: clasp-calib cache-features --layers {','.join(map(str, layers))}"
            )
        self._store, self._relevances = store, relevances
        self.layers, self._taps = layers, tuple(taps)
        self._needed = tuple(sorted({*layers, *taps}))
        self._key = cache(image_key)
        self._last = ""
        self._following: dict[str, str] = {}
        """Key -> the picture that came after it the last time; at first as `check` was given them."""

    def read(self, sample: Sample) -> Tensor:
        """Layers of the sample's picture, ``[l, T, C]`` float32 in the order of ``layers``.

        Raises:
            CacheError: the picture is not cached, or damaged.
        """
        return self._store.read(self.key(sample), self.layers).float()

    def fused(self, sample: Sample, alpha_Ml: Tensor) -> Tensor:
        """See `Features`; bit for bit what `clasp_calib.runtime.fusion.fuse` gives."""
        weights_Ml = alpha_Ml.to(torch.float32).cpu().numpy()
        key = self.key(sample)
        fused_MTC = torch.from_numpy(self._store.fused(key, self.layers, weights_Ml))
        self._prefetch_after(key)
        return fused_MTC

    def tapped(self, sample: Sample) -> Tensor:
        """See `Features`."""
        return self._store.read(self.key(sample), self._taps).float()

    def origin(self, sample: Sample) -> Origin:
        """See `Features`."""
        return self._store.origin(self.key(sample))

    def patches(self, sample: Sample) -> int:
        """See `Features`."""
        return self._store.tokens(self.key(sample))

    def relevance(self, sample: Sample, kind: str) -> list[Tensor]:
        """See `Features`."""
        assert self._relevances is not None, "features for the input profile need them"
        return self._relevances.of(self.key(sample), sample.picture, kind)

    def key(self, sample: Sample) -> str:
        """What the sample's pictures are cached under: their content."""
        return " ".join(self._key(one.picture) for one in sample.alone)

    def check(self, samples: Sequence[Sample]) -> None:
        """See `Features`."""
        pictures = {self.key(one): one for sample in samples for one in sample.alone}
        missing = [pictures[key].picture for key in self._store.missing(pictures, self._needed)]
        if missing:
            left_out = named_with_reasons(reasons_left_out(self._store.root, missing))
            mend = f"cache-features left out {left_out}; mend these files or remove their rows, and "
            layers = ",".join(map(str, self.layers))
            raise CacheError(
                f"{len(missing)} of {len(pictures)} pictures are not cached (first: {missing[0]}); "
                f"{mend if left_out else ''}run `clasp-calib cache-features --layers {layers}` with the same samples"
            )
        self._following |= dict(pairwise(pictures))

    def _prefetch_after(self, key: str) -> None:
        """Let the disk read the next picture while the model works on this one.

        A search looks at the same pictures in the same order again and again, so what came next the last time is a
        good guess; a wrong one costs a read that was not needed.
        """
        if key != self._last:
            self._following[self._last], self._last = key, key
            if following := self._following.get(key):
                self._store.prefetch([following], self._needed)
