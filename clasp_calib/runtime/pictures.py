"""Picture files as transformers decodes them."""

from pathlib import Path

from PIL import Image, ImageOps

from clasp_calib.common.errors import InputError


def as_seen(image: Image.Image) -> Image.Image:
    """A picture as transformers' ``load_image`` hands it on: upright according to its EXIF orientation, in RGB.

    Raises:
        Exception: whatever Pillow's reader raises for damaged data.
    """
    return ImageOps.exif_transpose(image).convert("RGB")


def load_picture(path: Path) -> Image.Image:
    """Decode a file; see `as_seen`.

    Raises:
        Exception: whatever Pillow's reader raises for damaged data.
    """
    with Image.open(path) as image:
        return as_seen(image)


def open_picture(path: Path) -> Image.Image:
    """`load_picture` for a file that a user names.

    Raises:
        InputError: there is no such file, or it is not a picture.
    """
    try:
        return load_picture(path)
    except FileNotFoundError:
        raise InputError(f"no picture at {path}; check the path") from None
    except Exception as error:  # Pillow's readers raise whatever a malformed file makes them raise.
        raise InputError(f"{path} cannot be read as a picture ({error}); expected PNG, JPEG or the like") from error
