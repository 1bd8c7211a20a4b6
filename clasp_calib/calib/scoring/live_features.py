"""Vision layers without a cache of them: the tower runs again whenever a picture is asked for.

Shape suffixes: M mixtures, l layers that may be mixed, L all layers, K those that a deepstack
projects, T patch tokens, C width of the tower.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from clasp_calib.cache.mixing import mixtures
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.precision import PrecisionError, Stored, precision_of
from clasp_calib.cache.prepare import Prepared
from clasp_calib.cache.states import states_of
from clasp_calib.calib.scoring.relevances import Relevances
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import CacheError
from clasp_calib.common.media import Media
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for

KEPT = 16
"""Pictures whose layers stay in memory. Our choice: a picture's questions often follow one another, and 16 pictures of
CLIP-L take 20 MB a layer."""


class LiveFeatures:
    """Runs the tower on a picture's pixels, and rounds its layers as a cache would.

    So that scores are those of a cache: what was encoded in a batch of several pictures may differ in the last bit of
    float32, where the matrix library sums in another order, and after rounding in the last bit of ``precision``.

    Args:
        model: its tower runs where and in what it is loaded.
        layers: the layers that may be mixed, as ``hidden_states`` counts them.
        prepare: of a picture's key and file what the tower is shown, as the processor makes it.
        check: raises if a picture of these, key -> file, cannot be had.
        precision: what layers are rounded to.

    Raises:
        CacheError: a layer that the tower does not have.
    """

    def __init__(
        self,
        model: Any,
        layers: tuple[int, ...],
        prepare: Callable[[str, Media], Prepared],
        check: Callable[[Mapping[str, Media]], None],
        precision: str,
    ):
        self._model = model
        adapter = adapter_for(model)
        last = adapter.vision_layers
        if wrong := [layer for layer in layers if not 0 <= layer <= last]:
            raise CacheError(
                f"the tower has no layers {wrong}; expected some of 0 (the embeddings) to {last} (the last block)"
            )
        self.layers, self._taps = layers, adapter.taps
        self._run = tuple(sorted({*layers, *adapter.taps}))
        """Layers that are noted when the tower runs."""
        self._prepare = prepare
        self._check = check
        self._precision = precision_of(precision)
        self._relevances = Relevances(model, prepare)
        self._key = cache(image_key)
        self._encoded = lru_cache(KEPT)(self._encode)

    def fused(self, sample: Sample, alpha_Ml: Tensor) -> Tensor:
        """See `clasp_calib.calib.scoring.features.Features`."""
        stored, _ = self._encoded(self.key(sample), sample.picture)
        weights_Ml = alpha_Ml.to(torch.float32).cpu().numpy()
        shape = stored.data_LTC.shape[1:]
        places = [self._run.index(layer) for layer in self.layers]
        slabs = [stored.at(slice(place, place + 1)) for place in places]
        return torch.from_numpy(mixtures(slabs.__getitem__, weights_Ml, self._precision, shape))

    def tapped(self, sample: Sample) -> Tensor:
        """See `clasp_calib.calib.scoring.features.Features`."""
        stored, _ = self._encoded(self.key(sample), sample.picture)
        return self._precision.decode(stored.at([self._run.index(tap) for tap in self._taps])).float()

    def origin(self, sample: Sample) -> Origin:
        """See `clasp_calib.calib.scoring.features.Features`."""
        return self._encoded(self.key(sample), sample.picture)[1]

    def patches(self, sample: Sample) -> int:
        """See `clasp_calib.calib.scoring.features.Features`; the tower runs for it."""
        return int(self._encoded(self.key(sample), sample.picture)[0].data_LTC.shape[1])

    def relevance(self, sample: Sample, kind: str) -> list[Tensor]:
        """See `clasp_calib.calib.scoring.features.Features`."""
        return self._relevances.of(self.key(sample), sample.picture, kind)

    def key(self, sample: Sample) -> str:
        """What the sample's pictures would be cached under: their content."""
        return " ".join(self._key(one.picture) for one in sample.alone)

    def check(self, samples: Sequence[Sample]) -> None:
        """See `clasp_calib.calib.scoring.features.Features`."""
        self._check({self.key(one): one.picture for sample in samples for one in sample.alone})

    def _encode(self, key: str, picture: Media) -> tuple[Stored, Origin]:
        [(layers_LTC, origin)] = states_of(self._model, [self._prepare(key, picture)], self._run)
        try:
            return self._precision.encode(layers_LTC), origin
        except PrecisionError as error:
            raise CacheError(f"layer {self._run[error.layer]} of {picture} has {error}") from error
