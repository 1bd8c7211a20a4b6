"""Run the frozen tower once over every distinct picture, and keep the layers that calibration will mix.

Shape suffixes: B pictures, L layers, T tokens, C channels.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clasp_calib.cache.fingerprint import encoder_fingerprint
from clasp_calib.cache.index import Durability
from clasp_calib.cache.pictures import (
    ahead,
    check_headers,
    distinct_pictures,
    image_key,
    refuse,
)
from clasp_calib.cache.precision import Precision, PrecisionError, Stored, precision_of
from clasp_calib.cache.store import SHARD_BYTES, FeatureStore
from clasp_calib.common.errors import CacheError, InputError
from clasp_calib.common.progress import progress
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.pictures import load_picture

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["CacheReport", "auto_layers", "cache_features", "image_key"]


@dataclass(frozen=True)
class CacheReport:
    """What one run of `cache_features` did."""

    pictures: int
    """Samples that have a picture."""
    unique: int
    """Different pictures among them, by content."""
    skipped: int
    """Unique pictures that were in the cache with all layers."""
    encoded: int
    dropped: int
    """Damaged slabs that were dropped, when asked to verify."""
    layers: tuple[int, ...]
    bytes: int
    """Of the features of the unique pictures at these layers."""
    seconds: float


def auto_layers(vision_layers: int, own_layer: int) -> tuple[int, ...]:
    """Candidate layers from shallow to deep, always with the model's own: (3, 9, 15, 20, 23) for CLIP-L.

    Args:
        vision_layers: blocks of the vision tower, L_v.
        own_layer: the model's ``vision_feature_layer`` as an index into ``hidden_states``, 0..L_v.

    Returns:
        Ascending indices into ``hidden_states``; at most five, fewer for a tower too small for them.

    Raises:
        CacheError: the model's own layer is not one of its layers.
    """
    if not 0 <= own_layer <= vision_layers:
        raise CacheError(f"own layer {own_layer} of a tower with layers 0 to {vision_layers}; give one of these")
    # Our choice: the middles of the first three quarters, and five sixths; nothing at the embeddings.
    depths = (1 / 8, 3 / 8, 5 / 8, 5 / 6)
    spread = {max(1, math.floor(depth * vision_layers + 0.5)) for depth in depths}
    return tuple(sorted(spread | {own_layer}))


def cache_features(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    samples: Sequence[Sample],
    layers: Sequence[int],
    root: Path,
    *,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    verify: bool = False,
    precision: str = "float16",
    durability: Durability = "process",
    shard_bytes: int = SHARD_BYTES,
) -> CacheReport:
    """Encode every distinct picture of ``samples`` that is not in the cache yet.

    It may be killed at any moment and run again: what it had stored is skipped.

    Args:
        model: its vision tower is moved to ``device`` and ``dtype``, and stays there.
        processor: the model's own.
        samples: pictures may occur several times; samples without one are passed over.
        layers: indices into ``hidden_states``, 0..L_v.
        root: directory of the feature store.
        batch_size: pictures a forward pass.
        device: where the tower runs.
        dtype: what it computes in; None leaves it as loaded.
        verify: first drop what is damaged in the store, so that it is encoded again.
        precision: what features are kept in, whatever they were computed in: ``float16``, ``bfloat16`` or ``int8``.
        durability: see `FeatureStore.open`.
        shard_bytes: see `FeatureStore.open`.

    Raises:
        InputError: there is no picture at all, or pictures cannot be read. Missing files and files that are
            no pictures are found before anything is encoded; damaged ones after everything else is stored.
        CacheError: a layer that the tower does not have or whose values exceed the precision; a store that was made
            with another encoder or is written by somebody else; a disk or a device that is too small.
    """
    started = time.monotonic()
    adapter = adapter_for(model)
    wanted = _checked(layers, adapter.vision_layers)
    with_picture = [sample.image for sample in samples if sample.image is not None]
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}; expected at least 1")
    if not with_picture:
        raise InputError(f"none of the {len(samples)} samples has a picture; expected a column 'image' with paths")
    pictures = distinct_pictures(with_picture)
    tower: Any = adapter.vision_tower(model).to(device=device, dtype=dtype)
    place = next(tower.parameters())
    shape = (adapter.tokens_per_image, tower.config.hidden_size)
    encoder = encoder_fingerprint(model, processor)
    kept = precision_of(precision)
    broken: dict[Path, Exception] = {}
    encoded = 0
    with FeatureStore.open(
        root,
        "w",
        encoder=encoder,
        layers=wanted,
        shape=shape,
        precision=precision,
        shard_bytes=shard_bytes,
        durability=durability,
    ) as store:
        dropped = store.drop_damaged() if verify else []
        missing = store.missing(pictures)
        store.reserve(missing)
        check_headers(pictures[key] for key in missing)
        skipped = len(pictures) - len(missing)
        batches = [missing[at : at + batch_size] for at in range(0, len(missing), batch_size)]
        load = partial(_load, pictures=pictures, processor=processor)
        with progress() as bar:
            task = bar.add_task(f"encoding ({skipped} are cached already)", total=len(missing))
            for batch in ahead(load, batches):
                broken |= batch.broken
                if batch.keys:
                    layers_BLTC = _encode(model, batch.pixels.to(place.device, place.dtype), wanted)
                    encoded += store.put(batch.keys, _stored(layers_BLTC, kept, wanted, batch.keys, pictures))
                bar.advance(task, len(batch.keys) + len(batch.broken))
    refuse(broken, f"; the {encoded} others are cached")
    return CacheReport(
        pictures=len(with_picture),
        unique=len(pictures),
        skipped=skipped,
        encoded=encoded,
        dropped=len(dropped),
        layers=wanted,
        bytes=len(pictures) * len(wanted) * shape[0] * (kept.data_row(shape[1]) + kept.scale_row(shape[1])),
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Batch:
    """Pictures ready for the tower, and those that turned out to be broken."""

    keys: list[str]
    pixels: torch.Tensor
    broken: dict[Path, Exception]


def _load(keys: Sequence[str], *, pictures: Mapping[str, Path], processor: "ProcessorMixin") -> _Batch:
    decoded = {}
    broken: dict[Path, Exception] = {}
    for key in keys:
        try:
            decoded[key] = load_picture(pictures[key])
        except Exception as error:  # Pillow's readers raise whatever damaged data makes them raise.
            broken[pictures[key]] = error
    prepare = getattr(processor, "image_processor", processor)
    pixels = prepare(images=list(decoded.values()), return_tensors="pt")["pixel_values"] if decoded else None
    return _Batch(list(decoded), torch.empty(0) if pixels is None else pixels, broken)


def _checked(layers: Sequence[int], vision_layers: int) -> tuple[int, ...]:
    if not layers or any(not 0 <= layer <= vision_layers for layer in layers):
        raise CacheError(
            f"cannot cache the layers {list(layers)}; expected some of 0 (the embeddings) to {vision_layers} "
            "(the last block)"
        )
    return tuple(sorted(set(layers)))


def _encode(model: "PreTrainedModel", pixels: torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    try:
        with torch.inference_mode():
            return adapter_for(model).capture(model, pixels)[:, list(layers)]
    except torch.OutOfMemoryError as error:
        raise CacheError(
            f"{len(pixels)} pictures at once do not fit on {pixels.device} ({error}); "
            "run again with a smaller batch size: what is cached so far stays"
        ) from error


def _stored(
    layers_BLTC: torch.Tensor,
    precision: Precision,
    layers: Sequence[int],
    keys: Sequence[str],
    pictures: Mapping[str, Path],
) -> list[Stored]:
    found = []
    for key, layers_LTC in zip(keys, layers_BLTC, strict=True):
        try:
            found.append(precision.encode(layers_LTC))
        except PrecisionError as error:
            wide = precision.name != "bfloat16" and math.isfinite(error.largest)
            another = ", or keep features in bfloat16 in another directory," if wide else ""
            raise CacheError(
                f"layer {layers[error.layer]} of {pictures[key]} has {error}; leave this layer out{another} "
                "and run again: what is cached so far stays"
            ) from error
    return found
