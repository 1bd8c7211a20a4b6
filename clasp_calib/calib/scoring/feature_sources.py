"""Which features there are for a model: a cache of its layers, or its tower again, on cached pixels or on files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clasp_calib.cache.encode import auto_layers
from clasp_calib.cache.fingerprint import encoder_fingerprint, pictures_fingerprint
from clasp_calib.cache.picture_files import check_headers
from clasp_calib.cache.pixels import LAYER, read_pixels
from clasp_calib.cache.precision import PIXELS
from clasp_calib.cache.prepare import Broken, Prepared, Preparer
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.features import CachedFeatures, Features
from clasp_calib.calib.scoring.live_features import LiveFeatures
from clasp_calib.calib.scoring.relevances import Relevances
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.media import Media
from clasp_calib.runtime.adapters import adapter_for

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
        cache: directory of a cache of features or of pixels; None runs the tower on the picture files.
        model: the model that the features are for.
        processor: its processor.

    Raises:
        CacheError: there is no cache, or it was made by another encoder.
    """
    encoder = encoder_fingerprint(model, processor)
    if cache is None:
        return _live(
            model, encoder, _from_files(model, processor), lambda files: check_headers(files.values(), processor)
        )
    store = FeatureStore.open(cache)
    if store.precision is PIXELS:
        store = FeatureStore.open(cache, encoder=pictures_fingerprint(processor))
        return _live(model, encoder, lambda key, _: _from_pixels(read_pixels(store, processor, key)), _cached_in(store))
    store = FeatureStore.open(cache, encoder=encoder)
    relevances, taps = Relevances(model, _from_files(model, processor)), adapter_for(model).taps
    return Source(
        store.layers,
        encoder,
        store.precision.name,
        lambda layers: CachedFeatures(store, layers, relevances, taps),
    )


def _live(
    model: Any, encoder: str, prepare: Callable[[str, Media], Prepared], check: Callable[[Mapping[str, Media]], None]
) -> Source:
    adapter = adapter_for(model)
    offered = auto_layers(adapter.vision_layers, adapter.own_layer, adapter.taps)
    return Source(offered, encoder, PRECISION, lambda layers: LiveFeatures(model, layers, prepare, check, PRECISION))


def _from_files(model: Any, processor: Any) -> Callable[[str, Media], Prepared]:
    preparer = Preparer.of(processor, adapter_for(model))

    def prepare(_: str, picture: Media) -> Prepared:
        prepared = preparer(picture)
        if isinstance(prepared, Broken):
            raise InputError(f"the picture {picture} cannot be read ({prepared.reason}); mend it or remove its rows")
        return prepared

    return prepare


def _from_pixels(pixels: Tensor) -> Prepared:
    return Prepared("image", pixels.numpy(), {}, "", 0.0, 0.0)


def _cached_in(store: FeatureStore) -> Callable[[Mapping[str, Media]], None]:
    def check(pictures: Mapping[str, Media]) -> None:
        if missing := store.missing(pictures, [LAYER]):
            raise CacheError(
                f"the pixels of {len(missing)} of {len(pictures)} pictures are not cached (first: "
                f"{pictures[missing[0]]}); run `clasp-calib cache-features --pixels` with the same samples"
            )

    return check
