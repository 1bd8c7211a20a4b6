"""Which features there are for a model: its cache of layers, or its tower again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clasp_calib.cache.encode import auto_layers
from clasp_calib.cache.fingerprint import encoder_fingerprint
from clasp_calib.cache.pictures import check_headers
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.features import CachedFeatures, Features
from clasp_calib.calib.live import LiveFeatures
from clasp_calib.common.errors import InputError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pictures import load_picture

PRECISION = "float16"
"""What live layers are rounded to: what a cache keeps unless it is told otherwise."""


@dataclass(frozen=True)
class Source:
    """Features of one model, before it is known which layers are wanted."""

    layers: tuple[int, ...]
    """Those that a search mixes unless it is told otherwise, ascending."""
    encoder: str
    """Fingerprint of what made them."""
    precision: str
    """What they are rounded to."""
    at: Callable[[tuple[int, ...]], Features]
    """Opens features of some layers; raises CacheError if these are not to be had."""


def open_source(cache: Path | None, model: Any, processor: Any) -> Source:
    """The features in a cache, or of the tower itself.

    Args:
        cache: directory of a feature cache; None runs the tower whenever a picture is asked for.
        model: the model that the features are for.
        processor: its processor.

    Raises:
        CacheError: there is no cache, or it was made by another encoder.
    """
    encoder = encoder_fingerprint(model, processor)
    if cache is not None:
        store = FeatureStore.open(cache, encoder=encoder)
        return Source(store.layers, encoder, store.precision.name, lambda layers: CachedFeatures(store, layers))
    adapter = adapter_for(model)
    images = getattr(processor, "image_processor", processor)

    def pixels(picture: Path) -> Tensor:
        try:
            prepared: Tensor = images(images=[load_picture(picture)], return_tensors="pt")["pixel_values"]
        except Exception as error:  # Pillow's readers raise whatever damaged data makes them raise.
            raise InputError(f"the picture {picture} cannot be read ({error}); mend it or remove its rows") from error
        return prepared

    def live(layers: tuple[int, ...]) -> Features:
        return LiveFeatures(model, layers, pixels, check_headers, PRECISION)

    return Source(auto_layers(adapter.vision_layers, adapter.own_layer), encoder, PRECISION, live)
