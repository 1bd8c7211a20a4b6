"""The input of the vision tower, cached instead of its output: pictures decoded, resized and cropped, in bytes.

A picture of CLIP ViT-L/14-336 takes 0.34 MB, less than a third of one layer, and no picture file is decoded again; the
tower runs whenever a picture is looked at.

Shape suffixes: B pictures, Y rows of pixels, X columns. In the store a picture is one slab, its planes one below
the other: [1, 3 Y, X].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clasp_calib.cache.prepare import Preparer
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError

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


@dataclass(frozen=True)
class PixelPreparer(Preparer):
    """Decodes, resizes and crops files."""

    def processed(self, picture: Image.Image, **told: Any) -> Mapping[str, Any]:
        """See `Preparer`; uint8 [1, 3, Y, X]. Pictures of one size are never resized, so that nothing is told."""
        return {"pixel_values": cropped(self.processor, [picture])}


def read_pixels(store: FeatureStore, processor: "ProcessorMixin", key: str) -> Tensor:
    """What the tower is shown of a picture, float32 [1, 3, Y, X].

    Raises:
        CacheError: the picture is not there, or damaged.
    """
    planes_1RX = store.read(key, [LAYER])
    return finished(processor, planes_1RX.view(1, PLANES, -1, planes_1RX.shape[-1]))


def size_of_all(processor: "ProcessorMixin") -> tuple[int, int]:
    """Rows and columns of all pictures, by a try that shows also whether the processor's two halves are the whole.

    Raises:
        CacheError: they are not, or pictures differ in size.
    """
    noise = np.random.default_rng(0)
    tries = [Image.fromarray(noise.integers(0, 256, size, np.uint8)) for size in ((90, 60, 3), (50, 200, 3))]
    pixels_B3YX = cropped(processor, tries)
    images: Any = getattr(processor, "image_processor", processor)
    if not torch.equal(finished(processor, pixels_B3YX), images(images=tries, return_tensors="pt")["pixel_values"]):
        raise CacheError(
            f"{type(images).__name__} cannot be taken up after resizing and cropping; cache layers, or use --recompute"
        )
    return int(pixels_B3YX.shape[2]), int(pixels_B3YX.shape[3])
