"""Pictures as transformers decodes them."""

from PIL import Image

from clasp_calib.common.errors import InputError
from clasp_calib.common.media import Media, as_seen, opened


def load_picture(picture: Media) -> Image.Image:
    """Decode a picture; see `as_seen`.

    Raises:
        Exception: whatever Pillow's reader raises for damaged data.
    """
    with opened(picture) as image:
        return as_seen(image)


def open_picture(path: Media) -> Image.Image:
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
