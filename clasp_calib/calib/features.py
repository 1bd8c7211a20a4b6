"""Where the evaluator gets a picture's vision layers from: the cache."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clasp_calib.cache.encode import image_key
from clasp_calib.cache.fingerprint import encoder_fingerprint
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError
from clasp_calib.common.samples import Sample


def open_cache(root: Path, model: Any, processor: Any) -> FeatureStore:
    """The feature cache of a model, for reading.

    Raises:
        CacheError: there is none, or it was made by another encoder.
    """
    return FeatureStore.open(root, encoder=encoder_fingerprint(model, processor))


class CachedFeatures:
    """Reads cached layers of samples' pictures.

    Args:
        store: an open feature store.
        layers: the layers to read, as ``hidden_states`` counts them.

    Raises:
        CacheError: the store does not hold them.
    """

    def __init__(self, store: FeatureStore, layers: tuple[int, ...]):
        lacking = sorted(set(layers) - set(store.layers))
        if lacking:
            raise CacheError(
                f"the cache holds the layers {store.layers}, not {lacking}; "
                f"add them: clasp-calib cache-features --layers {','.join(map(str, layers))}"
            )
        self._store = store
        self.layers = layers
        self._key = cache(image_key)

    def read(self, sample: Sample) -> Tensor:
        """Layers of the sample's picture, ``[l, T, C]`` float32 in the order of ``layers``.

        Raises:
            CacheError: the picture is not cached, or damaged.
        """
        return self._store.read(self.key(sample), self.layers).float()

    def fused(self, sample: Sample, alpha_Ml: Tensor) -> Tensor:
        """Mixtures of the layers of the sample's picture, ``[M, T, C]`` float32, bit for bit as `fuse` gives them.

        Args:
            sample: has a picture.
            alpha_Ml: weights, one row a mixture, one column each of ``layers``.

        Raises:
            CacheError: the picture is not cached, or damaged.
        """
        weights_Ml = alpha_Ml.to(torch.float32).cpu().numpy()
        return torch.from_numpy(self._store.fused(self.key(sample), self.layers, weights_Ml))

    def key(self, sample: Sample) -> str:
        """What the sample's picture is cached under: its content."""
        return self._key(_picture(sample))

    def check(self, samples: list[Sample]) -> None:
        """Make sure that all samples' pictures are there, before hours of work.

        Raises:
            CacheError: some are not.
        """
        pictures = {self.key(s): s for s in samples}
        missing = [pictures[key] for key in self._store.missing(pictures, self.layers)]
        if missing:
            raise CacheError(
                f"{len(missing)} of {len(pictures)} pictures are not cached (first: {missing[0].image}); "
                f"run `clasp-calib cache-features --layers {','.join(map(str, self.layers))}` with the same samples"
            )


def _picture(sample: Sample) -> Path:
    if sample.image is None:
        raise CacheError(f"sample {sample.id!r} has no picture")
    return sample.image
