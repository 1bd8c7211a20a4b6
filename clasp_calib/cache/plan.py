"""What a cache will cost and whether it pays, before a disk is filled: `clasp-calib cache-features --plan`.

A *look* is one picture with all candidates that are scored on it together. The ways to serve a look:

- ``layers``: the layers are cached and read;
- ``pixels``: the picture is cached as the tower is shown it, and the tower runs again;
- ``recompute``: nothing is cached, the picture is decoded and the tower runs.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from clasp_calib.cache.feature_options import DEFAULTS, FeatureOptions
from clasp_calib.cache.picture_files import first_files
from clasp_calib.cache.pixels import PLANES
from clasp_calib.cache.prepare import Broken, Prepared
from clasp_calib.cache.probe import DiskSpeed, probe_disk
from clasp_calib.cache.recipe import Recipe, recipe_for
from clasp_calib.cache.states import in_batches
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.contents import identified, refuse
from clasp_calib.common.media import Media
from clasp_calib.common.samples import Sample, pictures_of
from clasp_calib.runtime.adapters import adapter_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

LOOKS = 8
"""Looks that a search takes at a question. Our choice: one that halves 64 candidates takes up to seven, the first
look at the unpruned model one more."""
TRIED = 8
"""Pictures that are decoded and encoded for the timing."""
SPARE = 0.95
"""Share of the free space that a cache may take, to be recommended."""


@dataclass(frozen=True)
class EncoderSpeed:
    """Seconds a picture, measured on some of the pictures, and bytes of one."""

    decode: float
    """Decoding and preprocessing, in one thread."""
    alone: float
    """The tower, one picture at a time, as a look would run it."""
    batched: float
    """The tower, in batches, as `cache_features` runs it."""
    tokens: int
    """Of a layer; the mean where pictures differ."""
    channels: int
    pixels: int | None
    """Bytes of what the tower is shown, a byte a value; None where pictures differ in it, and cannot be cached so."""


@dataclass(frozen=True)
class Way:
    """One way to serve the looks of a calibration."""

    name: str
    bytes: int
    """On the disk, of all pictures."""
    make: float
    """Seconds until it is made, of what is not there yet."""
    look: float
    """Seconds of one look."""


@dataclass(frozen=True)
class CachePlan:
    """Everything that a decision needs."""

    pictures: int
    """Samples that have one."""
    unique: int
    duplicates: int
    """Samples whose picture an earlier one has too."""
    unreadable: int
    """Files that are not there or cannot be opened."""
    cached: int
    """Unique pictures that have all layers in the cache already."""
    layers: tuple[int, ...]
    precision: str
    free: int
    """Bytes."""
    memory: int
    """Bytes of this machine's memory: half of it is taken to hold what was read before."""
    disk: DiskSpeed
    encoder: EncoderSpeed
    ways: tuple[Way, ...]
    looks: int
    """In all."""
    taps: tuple[int, ...] = ()
    """Those of ``layers`` that are kept in any case, since the model projects them beside a mixture."""

    @property
    def tapped(self) -> int:
        """Bytes of them, of all pictures."""
        return self.way("layers").bytes // len(self.layers) * len(self.taps)

    @property
    def missing(self) -> int:
        """Bytes that are yet to be written."""
        return self.way("layers").bytes // max(1, self.unique) * (self.unique - self.cached)

    @property
    def break_even(self) -> float:
        """Bytes a second at which reading a picture's layers takes as long as recomputing them."""
        recompute = self.way("recompute").look
        return math.inf if recompute == 0 else self.way("layers").bytes / max(1, self.unique) / recompute

    @property
    def looks_to_pay(self) -> float:
        """Looks at each picture after which the cache of layers has saved the time that it takes to make."""
        layers, recompute = self.way("layers"), self.way("recompute")
        saved = (recompute.look - layers.look) * self.unique
        return math.inf if saved <= 0 else layers.make / saved

    @property
    def recommended(self) -> str:
        """The way that takes least time in all, of those that the disk has room for."""
        return min(filter(self.fits, self.ways), key=self.total).name

    def fits(self, way: Way) -> bool:
        """Whether the disk has room for it."""
        return self._to_write(way) <= SPARE * self.free

    def total(self, way: Way) -> float:
        """Seconds to make it and to look at it."""
        return way.make + self.looks * way.look

    def way(self, name: str) -> Way:
        """One of them."""
        return next(way for way in self.ways if way.name == name)

    def _to_write(self, way: Way) -> int:
        return self.missing if way.name == "layers" else way.bytes


def plan_cache(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    samples: Sequence[Sample],
    root: Path,
    options: FeatureOptions = DEFAULTS,
    looks: int = LOOKS,
) -> CachePlan:
    """Measure the disk and the encoder, and estimate; only an anonymous temporary file is written.

    Args:
        model: on the device and in the dtype that it would encode in.
        processor: its own.
        samples: pictures may occur several times.
        root: where the cache would be, or is.
        options: how pictures would be encoded and kept.
        looks: that a search takes at a question.

    Raises:
        InputError: there is no picture, or none of those tried can be read.
        CacheError: the disk cannot be written to, or the cache that is there is of another encoder.
    """
    recipe = recipe_for(model, processor, replace(options, pixels=False))
    paths = [picture for _, picture in pictures_of(samples)]
    found, unreadable = identified(paths)
    files = first_files(found)
    keys = list(files)
    if not keys:
        refuse(unreadable)
    some = [files[key] for key in keys[:: max(1, len(keys) // TRIED)][:TRIED]]
    speed = encoder_speed(recipe, some, options.batch_size)
    slab = recipe.form.stride(speed.tokens) * recipe.form.token_bytes
    cached = len(keys) - len(_missing(root, keys, recipe))
    folder = root.absolute()
    while not folder.is_dir():
        folder = folder.parent
    disk = probe_disk(folder, slab)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    workers = os.cpu_count() or 1

    def reading(size: int) -> float:
        """Seconds to read a picture of ``size`` bytes, the first look apart."""
        return size / (disk.memory if size * len(keys) <= memory / 2 else disk.read)

    left = len(keys) - cached
    size = slab * len(recipe.layers)
    decoding = speed.decode / workers
    layers_take = left * (max(decoding, speed.batched) + size / disk.write)
    ways = [Way("layers", size * len(keys), layers_take, reading(size))]
    if (pixels := speed.pixels) is not None:
        make = len(keys) * (decoding + pixels / disk.write)
        ways.append(Way("pixels", pixels * len(keys), make, reading(pixels) + speed.alone))
    ways.append(Way("recompute", 0, 0.0, speed.decode + speed.alone))
    return CachePlan(
        pictures=len(paths),
        unique=len(keys),
        duplicates=sum(path in found for path in paths) - len(keys),
        unreadable=len(unreadable),
        cached=cached,
        layers=recipe.layers,
        precision=options.precision,
        free=shutil.disk_usage(folder).free,
        memory=memory,
        disk=disk,
        encoder=speed,
        ways=tuple(ways),
        looks=looks * len(paths),
        taps=tuple(adapter_for(model).taps),
    )


def encoder_speed(recipe: Recipe, pictures: Sequence[Media], batch_size: int) -> EncoderSpeed:
    """Decode and encode some pictures, once to warm up and once for the clock.

    Raises:
        InputError: none of them can be read.
        CacheError: a batch does not fit on the device.
    """
    tried = {path: recipe.prepare(path) for path in pictures}
    good = [made for made in tried.values() if isinstance(made, Prepared)]
    if not good:
        refuse({path: made.reason for path, made in tried.items() if isinstance(made, Broken)})
    enough = [(number, good[number % len(good)]) for number in range(max(batch_size, len(good)))]
    batches = [[made for _, made in batch] for batch in in_batches(enough, batch_size)]
    encoded = [states for batch in batches for states, _ in recipe.encode(batch)]
    tokens = sum(states.shape[1] for states in encoded) / len(encoded)
    device = encoded[0].device
    batched = _seconds(lambda: [recipe.encode(batch) for batch in batches], device) / len(enough)
    alone = min(_seconds(lambda: [recipe.encode([made]) for made in good], device) for _ in range(2))
    alike = len({made.pixels.shape for made in good}) == 1 and good[0].pixels.shape[:2] == (1, PLANES)
    return EncoderSpeed(
        decode=sum(made.decode_seconds + made.preprocess_seconds for made in good) / len(good),
        alone=alone / len(good),
        batched=batched,
        tokens=math.ceil(tokens),
        channels=recipe.form.channels,
        pixels=good[0].pixels.size if alike else None,
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def _missing(root: Path, keys: Sequence[str], recipe: Recipe) -> list[str]:
    """Pictures that lack one of the layers in the cache that is there, or all."""
    if not FeatureStore.there(root):
        return list(keys)
    with FeatureStore.open(root, recipe.encoder) as store:
        return store.missing(keys, recipe.layers)
