"""Caching: pictures in, the layers of the frozen vision tower out, on disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clasp_calib.cache.feature_options import DEFAULTS, FeatureOptions
from clasp_calib.common.errors import InputError
from clasp_calib.common.places import Places, hints_of
from clasp_calib.common.progress import note
from clasp_calib.common.pruning_options import DEFAULT_STARTS, LAYERED

if TYPE_CHECKING:
    from clasp_calib.cache.cache_report import CacheReport
    from clasp_calib.cache.plan import CachePlan
    from clasp_calib.common.sample_set import Samples

__all__ = ["FeatureOptions", "cache_features", "plan_features", "starts_for"]


def cache_features(
    model: Any,
    processor: Any,
    samples: Any,
    *,
    run: str | Path | Places,
    options: FeatureOptions = DEFAULTS,
) -> "CacheReport":
    """Run the vision tower once over each different picture, and keep the layers that a calibration mixes.

    It may be killed at any moment and called again: what was stored is skipped. Pictures that cannot be read are left
    out, and named in the report and in ``odd-pictures.json`` beside the cache.

    Args:
        model: a transformers model of a known architecture, on the device and in the dtype that it is to encode in.
        processor: the model's.
        samples: as `load_samples` takes them; those without a picture are passed over.
        run: run directory, whose cache is ``cache/``. `Places` names another directory for it (``features``).
        options: which layers, and how they are kept.

    Returns:
        What was encoded, what was there, what was left out, and where the time went.

    Raises:
        BudgetError: the decoder has too few layers for any stages of pruning.
        CacheError: the tower lacks a layer; the cache is of another encoder, or damaged, or written by somebody else.
        InputError: no picture can be read, a question has several, or there is no place for the cache.
        ModelError: the model's architecture is not known, or cannot be pruned; the processor is not the model's.
    """
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.cache.encode import cache_features as encode
    from clasp_calib.runtime.adapters import adapter_for

    places, target, given = _prepared(model, processor, samples, run)
    adapter = adapter_for(model)
    kept = options.layers_of(adapter.vision_layers, adapter.own_layer, adapter.taps)
    layers = "pixels" if options.pixels else kept
    places.record("cache-features", model=model.config._name_or_path, samples=given.name, layers=layers, out=target)
    with undisturbed(model):
        return encode(model, processor, given, target, options, hints_of(places))


def plan_features(
    model: Any,
    processor: Any,
    samples: Any,
    *,
    run: str | Path | Places,
    options: FeatureOptions = DEFAULTS,
) -> "CachePlan":
    """What `cache_features` would cost with the same arguments, and whether it pays here. Nothing is kept."""
    from clasp_calib.api.undisturbed import undisturbed
    from clasp_calib.cache.plan import plan_cache

    _, target, given = _prepared(model, processor, samples, run)
    with undisturbed(model):
        return plan_cache(model, processor, given, target, options)


def starts_for(model: Any) -> tuple[int, ...]:
    """The decoder layers that the stages of pruning may begin at: the default ones, or others for a short decoder.

    Raises:
        BudgetError: it has too few layers for three stages.
    """
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.schedule import check_starts, fitting_starts

    adapter = adapter_for(model)
    if LAYERED not in adapter.profiles:
        return DEFAULT_STARTS  # which nothing looks at
    layers = adapter.decoder_layers
    starts = DEFAULT_STARTS if DEFAULT_STARTS[-1] < layers else fitting_starts(layers)
    check_starts(starts, layers)
    return starts


def _prepared(model: Any, processor: Any, samples: Any, run: str | Path | Places) -> "tuple[Places, Path, Samples]":
    """Where things go, and of what; refuses a model that a calibration would refuse after hours of encoding."""
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.checks import check_decoder
    from clasp_calib.runtime.processor_check import check_processor

    check_processor(model, processor)
    places = Places.of(run)
    if places.features is None:
        raise InputError("a cache needs a place; give a run directory, or Places(features=DIRECTORY)")
    if LAYERED in adapter_for(model).profiles:
        check_decoder(model, positions="keep")
    if (starts := starts_for(model)) != DEFAULT_STARTS:
        named = ",".join(map(str, starts))
        note(
            f"the decoder has {adapter_for(model).decoder_layers} layers, too few for the default stages; calibrate it "
            f"with others, such as --starts {named} (in Python: PruningOptions(starts=({named})))"
        )
    return places, places.features, load_samples(samples)
