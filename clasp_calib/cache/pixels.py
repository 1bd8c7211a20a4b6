"""Cache what the vision tower is shown instead of what it says: pictures decoded, resized and cropped, in bytes.

A picture of CLIP ViT-L/14-336 takes 0.34 MB, less than a third of one layer, and no picture file is decoded again; the
tower runs whenever a picture is looked at.

Shape suffixes: B pictures, Y rows of pixels, X columns. In the store a picture is one slab, its planes one below
the other: [1, 3 Y, X].
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clasp_calib.cache.cache_report import CacheReport, Times
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.fingerprint import pictures_fingerprint
from clasp_calib.cache.form import Form
from clasp_calib.cache.picture_files import ahead, check_headers, distinct_pictures, refuse
from clasp_calib.cache.precision import PIXELS, Stored
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.common.errors import CacheError
from clasp_calib.common.media import Media
from clasp_calib.common.progress import progress
from clasp_calib.common.samples import Sample, pictures_of
from clasp_calib.runtime.pictures import load_picture

if TYPE_CHECKING:
    from transformers import ProcessorMixin

LAYER = 0
"""Pixels have one layer: what enters the tower."""
PLANES = 3


def cropped(processor: "ProcessorMixin", pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures as the processor resizes and crops them: uint8 [B, 3, Y, X].

    Raises:
        CacheError: it does not give all pictures the same size, or changes more than values after that.
    """
    images: Any = getattr(processor, "image_processor", processor)
    pixels = images(images=list(pictures), return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"]
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] != PLANES:
        raise CacheError(
            f"{type(images).__name__} makes pictures {pixels.dtype} {tuple(pixels.shape)}, and pixels can be cached "
            "where all are uint8 [B, 3, Y, X]; cache layers, or use --recompute"
        )
    return torch.as_tensor(pixels)


def finished(processor: "ProcessorMixin", pixels_B3YX: Tensor) -> Tensor:
    """What the tower is shown of `cropped` pictures: scaled and normalised, float32 [B, 3, Y, X]."""
    images: Any = getattr(processor, "image_processor", processor)
    planes = list(pixels_B3YX.numpy())
    prepared: Tensor = images(
        images=planes,
        return_tensors="pt",
        do_resize=False,
        do_center_crop=False,
        do_convert_rgb=False,
        input_data_format="channels_first",
    )["pixel_values"]
    return prepared


def cache_pixels(
    processor: "ProcessorMixin",
    samples: Sequence[Sample],
    root: Path,
    options: FeatureOptions,
) -> CacheReport:
    """Decode, resize and crop every distinct picture of ``samples`` that is not in the cache yet.

    Arguments and errors as of `clasp_calib.cache.encode.cache_features`.

    Raises:
        CacheError: also if the processor's pixels are not all of one size, or if what `finished` makes of them is
            not what the processor makes of the pictures.
    """
    started = time.monotonic()
    with_picture = [picture for _, picture in pictures_of(samples)]
    pictures = distinct_pictures(with_picture)
    rows, columns = _size(processor)
    broken: dict[Media, Exception] = {}
    encoded = 0
    form = Form(columns, PIXELS, PLANES * rows)
    with FeatureWriter(root, pictures_fingerprint(processor), (LAYER,), form, options) as store:
        dropped = store.drop_damaged() if options.verify else []
        missing = store.missing(pictures)
        store.reserve(missing)
        check_headers(pictures[key] for key in missing)
        size = options.batch_size
        batches = [missing[at : at + size] for at in range(0, len(missing), size)]
        load = partial(_load, pictures=pictures, processor=processor)
        with progress() as bar:
            task = bar.add_task(f"decoding ({len(pictures) - len(missing)} are cached already)", total=len(missing))
            for decoded, failed in ahead(load, batches):
                broken |= failed
                slabs = [Stored(pixels_3YX.reshape(1, -1, columns).numpy()) for pixels_3YX in decoded.values()]
                encoded += store.put(list(decoded), slabs)
                bar.advance(task, len(decoded) + len(failed))
    refuse(broken, f"; the {encoded} others are cached")
    return CacheReport(
        pictures=len(with_picture),
        unique=len(pictures),
        skipped=len(pictures) - len(missing),
        encoded=encoded,
        dropped=len(dropped),
        bytes=len(pictures) * PLANES * rows * columns,
        layers=(LAYER,),
        seconds=time.monotonic() - started,
        workers=0,
        times=Times(),
        odd=(),
    )


def read_pixels(store: FeatureStore, processor: "ProcessorMixin", key: str) -> Tensor:
    """What the tower is shown of a picture, float32 [1, 3, Y, X].

    Raises:
        CacheError: the picture is not there, or damaged.
    """
    planes_1RX = store.read(key, [LAYER])
    return finished(processor, planes_1RX.view(1, PLANES, -1, planes_1RX.shape[-1]))


def _load(
    keys: Sequence[str], *, pictures: Mapping[str, Media], processor: "ProcessorMixin"
) -> tuple[dict[str, Tensor], dict[Media, Exception]]:
    decoded: dict[str, Image.Image] = {}
    broken: dict[Media, Exception] = {}
    for key in keys:
        try:
            decoded[key] = load_picture(pictures[key])
        except Exception as error:  # Pillow's readers raise whatever damaged data makes them raise.
            broken[pictures[key]] = error
    pixels = cropped(processor, list(decoded.values())) if decoded else ()
    return dict(zip(decoded, pixels, strict=True)), broken


def _size(processor: "ProcessorMixin") -> tuple[int, int]:
    """Rows and columns of all pictures, by a try that shows also whether the processor's two halves are the whole."""
    noise = np.random.default_rng(0)
    tries = [Image.fromarray(noise.integers(0, 256, size, np.uint8)) for size in ((90, 60, 3), (50, 200, 3))]
    pixels_B3YX = cropped(processor, tries)
    images: Any = getattr(processor, "image_processor", processor)
    if not torch.equal(finished(processor, pixels_B3YX), images(images=tries, return_tensors="pt")["pixel_values"]):
        raise CacheError(
            f"{type(images).__name__} cannot be taken up after resizing and cropping; cache layers, or use --recompute"
        )
    return int(pixels_B3YX.shape[2]), int(pixels_B3YX.shape[3])
