"""Run the frozen tower once over every distinct picture, and keep the layers that calibration will mix."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from clasp_calib.cache.cache_report import CacheReport, Times
from clasp_calib.cache.feature_options import DEFAULTS, FeatureOptions, auto_layers
from clasp_calib.cache.odd import record_odd_pictures
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.picture_files import first_files, headers
from clasp_calib.cache.pipeline import BackgroundWriter, prepared_ahead, workers_for
from clasp_calib.cache.precision import PrecisionError, Stored
from clasp_calib.cache.prepare import Broken, Prepared
from clasp_calib.cache.recipe import Recipe, recipe_for
from clasp_calib.cache.states import in_batches
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.containing import contained
from clasp_calib.common.contents import identified, refuse
from clasp_calib.common.errors import CacheError
from clasp_calib.common.media import Media
from clasp_calib.common.progress import progress
from clasp_calib.common.samples import Sample, pictures_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["CacheReport", "auto_layers", "cache_features"]

_WAITING = 4
"""Batches that may wait for the writer. Our choice: enough for a commit that takes long, little enough memory."""


def cache_features(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    samples: Sequence[Sample],
    root: Path,
    options: FeatureOptions = DEFAULTS,
    hints: Path | None = None,
) -> CacheReport:
    """Encode every distinct picture of ``samples`` that is not in the cache yet.

    It may be killed at any moment and run again: what it had stored is skipped. Pictures that cannot be read are left
    out, and named in ``odd-pictures.json`` beside the cache; when pixels are cached they are an error.

    Args:
        model: its vision towers run where and in the dtype in which they are.
        processor: the model's own.
        samples: pictures may occur several times; samples without one are passed over.
        root: directory of the feature store.
        options: how pictures are encoded and kept.
        hints: see `clasp_calib.common.contents.identified`.

    Raises:
        InputError: there is no picture at all, or none that can be read.
        ModelError: the model projects more than one state, so that what is cached could not be used.
        ComputationError: the tower fails on a batch, or the memory is too small for it.
        CacheError: a layer that the tower does not have or whose values exceed the precision; pixels that are not all
            of one size, or to which the processor does more than it should; a store that was made with another encoder
            or is written by somebody else; a disk or a device that is too small; a worker that died.
    """
    started = time.monotonic()
    recipe = recipe_for(model, processor, options)
    named = pictures_of(samples)
    keys, broken = identified((path for _, path in named), hints)
    if options.pixels or not keys:
        refuse(broken)
    files = first_files(keys)
    with FeatureWriter(root, recipe.encoder, recipe.layers, recipe.form, options) as store:
        dropped = store.drop_damaged() if options.verify else []
        missing = store.missing(files)
        sizes, left_out = headers({key: files[key] for key in missing}, processor)
        if options.pixels:
            refuse({files[key]: reason for key, reason in left_out.items()})
        todo = list(sizes)
        if recipe.form.tokens is None:
            # Pictures of one size are neighbours then, and go through the tower together.
            todo.sort(key=lambda key: sizes[key])
        store.reserve(todo)
        workers = options.workers
        if workers is None:
            # What is in memory need not be opened, and would have to be sent.
            workers = workers_for(sum(isinstance(files[key], Path) for key in todo))
        run = _Encoding(recipe, store, files)
        run.encode(todo, options.batch_size, workers, len(files) - len(missing))
        if options.pixels:
            refuse({files[key]: reason for key, reason in run.broken.items()}, f"; the {run.encoded} others are cached")
        left_out |= run.broken
        cached = {key: store.origin(key) for key in files if key not in left_out}
        size = sum(store.tokens(key) for key in cached) * len(recipe.layers) * recipe.form.token_bytes
    broken |= {path: left_out[key] for path, key in keys.items() if key in left_out}
    notes = {path: cached[key].note for path, key in keys.items() if key in cached and cached[key].note}
    odd = record_odd_pictures(root, named, broken, notes)
    if not cached:
        refuse(broken)
    return CacheReport(
        pictures=len(named),
        unique=len(cached),
        skipped=len(files) - len(missing),
        encoded=run.encoded,
        dropped=len(dropped),
        layers=recipe.layers,
        bytes=size,
        seconds=time.monotonic() - started,
        workers=workers,
        times=run.times,
        odd=odd,
    )


class _Encoding:
    """Pictures on their way from their files through the tower into the store."""

    def __init__(self, recipe: Recipe, store: FeatureWriter, files: Mapping[str, Media]) -> None:
        self.times = Times()
        self.encoded = 0
        self.broken: dict[str, str] = {}
        """Key -> why the picture cannot be used."""
        self._recipe = recipe
        self._store = store
        self._files = files

    def encode(self, keys: Sequence[str], batch_size: int, workers: int, skipped: int) -> None:
        """Encode the pictures of ``keys`` in this order, and return when all are stored."""
        times = self.times
        with progress() as bar:
            task = bar.add_task(f"encoding ({skipped} are cached already)", total=len(keys))

            def write(batch: tuple[list[str], list[Stored], list[Origin]]) -> None:
                self.encoded += self._store.put(*batch)
                bar.update(task, advance=len(batch[0]), total=len(keys) - len(self.broken))

            # The tower's batch, one that is ready, and what the workers have in hand.
            ahead = 2 * batch_size + max(workers, 8)
            files = [self._files[key] for key in keys]
            with (
                BackgroundWriter(write, _WAITING) as writer,
                closing(prepared_ahead(self._recipe.prepare, files, workers, ahead)) as prepared,
            ):
                for batch in in_batches(self._readable(keys, prepared), batch_size):
                    begun = time.perf_counter()
                    made = self._stored(batch)
                    times.encode += time.perf_counter() - begun
                    writer.put(made)
            times.write, times.wait_for_cache = writer.seconds, writer.waited

    def _readable(self, keys: Sequence[str], prepared: Iterator[Prepared | Broken]) -> Iterator[tuple[str, Prepared]]:
        for key in keys:
            begun = time.perf_counter()
            picture = next(prepared)
            self.times.wait_for_pictures += time.perf_counter() - begun
            if isinstance(picture, Broken):
                self.broken[key] = picture.reason
            else:
                self.times.decode += picture.decode_seconds
                self.times.preprocess += picture.preprocess_seconds
                yield key, picture

    def _stored(self, batch: Sequence[tuple[str, Prepared]]) -> tuple[list[str], list[Stored], list[Origin]]:
        keys = [key for key, _ in batch]
        with contained(f"encoding {', '.join(str(self._files[key]) for key in keys[:8])}"):
            states = self._recipe.encode([prepared for _, prepared in batch])
        precision, features = self._store.precision, []
        for key, (states_LTC, _) in zip(keys, states, strict=True):
            try:
                features.append(precision.encode(states_LTC))
            except PrecisionError as error:
                raise CacheError(
                    f"layer {self._recipe.layers[error.layer]} of {self._files[key]} has {error} (what is "
                    "cached so far stays)"
                ) from error
        return keys, features, [origin for _, origin in states]
