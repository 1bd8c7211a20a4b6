"""The features that a call works on: where it is given a run directory, they are cached first."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions, auto_layers
from clasp_calib.cache.precision import PIXELS
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.contents import identified
from clasp_calib.common.media import ResizedPicture
from clasp_calib.common.places import Places, hints_of
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.processor_check import check_together


def filled(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    run: str | Path | Places | None,
    layers: Iterable[int] = (),
) -> Places:
    """The places of a call, with the features of all samples in the cache of a run directory.

    What a cache holds is not encoded again, and it keeps its precision and its layers, to which those are added that it
    lacks of ``layers``. Features that `Places` names must be there already, but for those of pictures that are shown
    smaller: nobody but the call knows the sizes.

    Raises:
        CacheError: the cache is of another encoder, or cannot be written to; the tower lacks a layer.
        InputError: a picture cannot be read.
        ModelError: samples have several pictures, of which the processor makes others together than alone.
    """
    if any(len(sample.alone) > 1 for sample in samples):
        check_together(processor)
    places = Places.of(run)
    if places.features is None:
        return places
    if places is run:
        samples, layers = _smaller(samples, places), ()
        if not samples:
            return places
    adapter = adapter_for(model)
    held, options = auto_layers(adapter.vision_layers, adapter.own_layer, adapter.taps), FeatureOptions()
    if places.features.is_dir() and any(places.features.iterdir()):
        store = FeatureStore.open(places.features)
        if store.precision is PIXELS:
            options = FeatureOptions(pixels=True)
        else:
            # None where the first call was interrupted before its first picture.
            held = store.layers or held
            options = FeatureOptions(precision=store.precision.name)  # type: ignore[arg-type]
    if not options.pixels:
        options = replace(options, layers=sorted({*held, *layers}))
    cache_features(model, processor, samples, places.features, options, hints_of(places))
    return places


def _smaller(samples: Sequence[Sample], places: Places) -> list[Sample]:
    """Those of pictures in another size than their own; none where a picture of its own size is not cached.

    Raises:
        CacheError: the cache cannot be read.
    """
    every = {one.picture: one for sample in samples for one in sample.alone}
    smaller = [one for picture, one in every.items() if isinstance(picture, ResizedPicture)]
    if not smaller:
        return []
    assert places.features is not None
    keys, _ = identified((picture for picture in every if not isinstance(picture, ResizedPicture)), hints_of(places))
    return [] if FeatureStore.open(places.features).missing(keys.values()) else smaller
