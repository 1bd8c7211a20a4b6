"""From a file or bytes to what a model sees of a picture, bounded before anything is decoded.

Pictures are decoded as transformers decodes them. A header of a few bytes can ask for any amount of memory: by the size
of the picture, or by a shape that the model's processor stretches, such as one pixel by 20,000 that are to be 336 wide.
"""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from clasp_calib.common.errors import ClaspError, InputError, PictureError
from clasp_calib.common.media import Media, as_media, as_seen, opened
from clasp_calib.common.samples import Given

PIXELS = 128_000_000
"""Of a picture and of what the processor makes of it, together. Our choice: the photos of telephones with 108
megapixels pass. One took 1.4 GiB to decode and to prepare for CLIP, 13 bytes a pixel."""
ASPECT = 200
"""Longer side over the shorter one. Our choice: the limit of Qwen-VL's own processor
(https://github.com/QwenLM/Qwen2.5-VL, ``MAX_RATIO``)."""
_INTERPRETED = ("EPS",)
"""Formats for which Pillow starts another program, Ghostscript."""
_ON_THE_SIDE = (5, 6, 7, 8)
"""EXIF orientations of pictures whose rows are columns."""


@contextmanager
def readable(picture: Media, processor: Any = None) -> Iterator[tuple[Image.Image, int]]:
    """A picture whose header was read and whose size is bounded, not decoded yet, and the pixels that it will take.

    Args:
        picture: a file or what is in memory.
        processor: of the model that it is for; without it, what it would make of the picture is not looked at.

    Raises:
        PictureError: it cannot be opened or is too large; or the block raised, as decoding damaged data does.
    """
    try:
        with opened(picture) as image:
            if image.format in _INTERPRETED:
                raise PictureError(picture, f"{image.format} is a program rather than a picture; save it as PNG")
            yield image, _bounded(picture, image.size, processor)
    except ClaspError:
        raise
    except UnidentifiedImageError:
        raise PictureError(picture, "it is no picture that Pillow knows, such as PNG or JPEG") from None
    except OSError as error:
        raise PictureError(picture, error.strerror or str(error)) from error
    except Exception as error:  # Pillow's readers raise whatever damaged data makes them raise.
        raise PictureError(picture, str(error) or type(error).__name__) from error


def header(picture: Media, processor: Any = None) -> tuple[int, int]:
    """Width and height of a picture that can probably be read: only its header is.

    Raises:
        PictureError: see `readable`.
    """
    with readable(picture, processor) as (image, _):
        size: tuple[int, int] = image.size
        return size


def seen_size(picture: Media, processor: Any = None) -> tuple[int, int]:
    """Width and height of a picture as a model sees it, upright: only its header is read.

    Raises:
        PictureError: see `readable`.
    """
    with readable(picture, processor) as (image, _):
        width, height = image.size
        return (height, width) if image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_THE_SIDE else (width, height)


def load_picture(image: Given, processor: Any = None) -> Image.Image:
    """A picture as commands and calibrations see it: upright according to its EXIF orientation, in RGB.

    Of an animation the first frame. `processor` takes it as it is; `PIL.Image.open` alone would leave it turned.

    Args:
        image: path of a file, a PIL picture, or the bytes of an encoded one.
        processor: of the model that it is for, if pictures are to be refused that it would make too large.

    Raises:
        InputError: it cannot be read; it is far too large or too narrow; or it is none of the above.
    """
    try:
        picture = as_media(image)
    except TypeError:
        raise InputError(f"the image is {reprlib.repr(image)}; expected the path of a file, or a PIL picture") from None
    with readable(picture, processor) as (opened_, _):
        return decoded(picture, opened_, processor)


def decoded(picture: Media, image: Image.Image, processor: Any = None) -> Image.Image:
    """An opened picture as a model sees it, bounded again: the header of an icon need not tell the size within it.

    Raises:
        PictureError: it is too large.
        Exception: whatever Pillow's reader raises for damaged data.
    """
    seen = as_seen(image)
    _bounded(picture, seen.size, processor)
    return seen


def resized(processor: Any, width: int, height: int) -> tuple[int, int]:
    """The largest that a processor makes of a picture, before it crops: width and height.

    Zeros for one that bounds it itself, by a fixed size or a number of tiles or pixels.
    """
    images = getattr(processor, "image_processor", processor)
    size = dict(getattr(images, "size", None) or {})
    if getattr(images, "image_grid_pinpoints", None) or getattr(images, "max_image_size", None):
        return 0, 0
    made = [(0, 0)]
    if getattr(images, "do_pad", False):
        width = height = max(width, height)
        made.append((width, height))
    if getattr(images, "do_resize", True) and set(size) == {"shortest_edge"}:
        scale = size["shortest_edge"] / min(width, height)
        made.append((round(width * scale), round(height * scale)))
    return max(made)


def _bounded(picture: Media, size: tuple[int, int], processor: Any) -> int:
    width, height = size
    if min(size) < 1:
        raise PictureError(picture, f"it has {width} x {height} pixels")
    if max(size) > ASPECT * min(size):
        raise PictureError(
            picture, f"it has {width} x {height} pixels, and no side may be over {ASPECT} times the other; crop it"
        )
    made = (0, 0) if processor is None else resized(processor, width, height)
    pixels = width * height + made[0] * made[1]
    if pixels > PIXELS:
        grown = f", of which the processor makes {made[0]} x {made[1]}" if made[0] * made[1] > PIXELS // 2 else ""
        raise PictureError(
            picture, f"it has {width} x {height} pixels{grown}, over {PIXELS // 10**6} million in all; make it smaller"
        )
    return pixels
