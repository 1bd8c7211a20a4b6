"""Sizes in which a processor makes fewer visual tokens of a picture.

Most processors make fewer tokens of fewer pixels. Two kinds do not. InternVL's chooses its tiles by the shape of a
picture alone, and Idefics3's and SmolVLM's scale every picture to one length first. Of these a smaller picture is one
that they would make themselves with a lower limit of tiles. It may have more pixels than the picture itself, which they
enlarge too.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Size = tuple[int, int]
"""Width and height in pixels."""
SHORTEST = 28
"""Pixels of a picture's shorter side, at the least. Our choice: those that one visual token of Qwen-VL stands for. With
fewer nothing of the picture is left, and rounding to whole pixels would change its shape."""
STEPS = 96
"""Sizes that are tried below a picture's own. Our choice: they are about 1 percent apart, and each costs a run of the
processor."""


def smaller_sizes(processor: Any, size: Size) -> Iterator[Size]:
    """Sizes to show a picture in, the one of most tokens first as a rule; there is at least one.

    Those of InternVL, Idefics3 and SmolVLM may be larger than the picture.

    Args:
        processor: of the model.
        size: of the picture.
    """
    images = getattr(processor, "image_processor", processor)
    if hasattr(images, "max_patches"):
        return _canvases(images, size)
    if _scales_to_tiles(processor):
        return _lengths(images, size)
    return scaled(size)


def as_sized(processor: Any) -> dict[str, Any]:
    """What a processor is told so that it leaves a picture in the size that `smaller_sizes` gave it.

    Idefics3's and SmolVLM's would enlarge it again; the others are told nothing.
    """
    return {"do_resize": False} if _scales_to_tiles(processor) else {}


def scaled(size: Size) -> Iterator[Size]:
    """A size and smaller ones of its shape, the largest first, until the shorter side has `SHORTEST` pixels.

    A picture that is narrower has no smaller one. Sides are whole pixels, so shapes differ by at most 2 percent.
    """
    longer = max(size)
    least = min(longer, math.ceil(longer * SHORTEST / min(size)))
    steps = min(STEPS, longer - least)
    for step in range(steps + 1):
        length = longer - (longer - least) * step // max(steps, 1)
        width, height = (round(side * length / longer) for side in size)
        yield width, height


def _canvases(images: Any, size: Size) -> Iterator[Size]:
    """What the processor fits a large picture of this shape to when it may cut ``max_patches`` tiles, and ever fewer.

    Our choice: a large one, for of grids that are equally near in shape it cuts a small picture into the coarsest.
    """
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    tile = (images.size["height"], images.size["width"])
    large = tuple(side * images.max_patches * max(tile) for side in reversed(size))
    limits = range(images.max_patches, min(images.min_patches, images.max_patches) - 1, -1)
    grids = [get_optimal_tiled_canvas(large, tile, images.min_patches, limit) for limit in limits]
    for columns, rows in dict.fromkeys(grids):
        yield columns * tile[1], rows * tile[0]


def _lengths(images: Any, size: Size) -> Iterator[Size]:
    """The length that the processor scales every picture to, and ever fewer whole tiles."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

    own, tile = images.size["longest_edge"], images.max_image_size["longest_edge"]
    picture = np.broadcast_to(np.uint8(0), size[::-1])
    for length in (own, *range((own - 1) // tile * tile, 0, -tile)):
        height, width = get_resize_output_image_size(picture, resolution_max_side=length)
        yield width, height


def _scales_to_tiles(processor: Any) -> bool:
    images = getattr(processor, "image_processor", processor)
    tiled = bool(getattr(images, "max_image_size", None)) and "longest_edge" in (getattr(images, "size", None) or {})
    return tiled and getattr(images, "do_resize", True)
