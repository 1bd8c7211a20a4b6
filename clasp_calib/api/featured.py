"""The features that a call works on: where it is given a run directory, they are cached first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.precision import PIXELS
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.places import Places
from clasp_calib.common.samples import Sample


def filled(model: Any, processor: Any, samples: Sequence[Sample], run: str | Path | Places | None) -> Places:
    """The places of a call, with the features of all samples in the cache of a run directory.

    What a cache holds is not encoded again, and it keeps its layers and precision. Features that `Places` names must be
    there already.

    Raises:
        CacheError: the cache is of another encoder, or cannot be written to.
        InputError: a picture cannot be read.
    """
    places = Places.of(run)
    if places is run or places.features is None:
        return places
    options = FeatureOptions()
    if places.features.is_dir() and any(places.features.iterdir()):
        store = FeatureStore.open(places.features)
        if store.precision is PIXELS:
            options = FeatureOptions(pixels=True)
        else:
            options = FeatureOptions(layers=store.layers, precision=store.precision.name)  # type: ignore[arg-type]
    cache_features(model, processor, samples, places.features, options)
    return places
