"""Pictures, most of them files: the different ones among them, their sizes, and those that cannot be read."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from clasp_calib.cache.prepare import large_pictures_allowed
from clasp_calib.common.contents import identified, refuse
from clasp_calib.common.errors import PictureError
from clasp_calib.common.media import Media, is_video
from clasp_calib.runtime.pictures import header

if TYPE_CHECKING:
    from transformers import ProcessorMixin

K = TypeVar("K")


def distinct_pictures(paths: Iterable[Media]) -> dict[str, Media]:
    """Key -> the first file with that content, in the order of ``paths``.

    Raises:
        InputError: files that cannot be read; all of them are counted and the first are named.
    """
    keys, broken = identified(paths)
    refuse(broken)
    return first_files(keys)


def first_files(keys: Mapping[Media, str]) -> dict[str, Media]:
    """Key -> the first file that has it, in the order of the files."""
    files: dict[str, Media] = {}
    for path, key in keys.items():
        files.setdefault(key, path)
    return files


def check_headers(paths: Iterable[Media], processor: "ProcessorMixin | None" = None) -> None:
    """Find files that are no pictures at all before hours are spent on the others.

    Raises:
        InputError: there are such files.
    """
    refuse(headers({path: path for path in paths}, processor)[1])


def headers(
    files: Mapping[K, Media], processor: "ProcessorMixin | None" = None
) -> tuple[dict[K, tuple[int, int]], dict[K, str]]:
    """Find files that are no pictures before hours are spent on the others.

    Args:
        files: by key.
        processor: of the model that they are for; without it, what it would make of them is not looked at.

    Returns:
        Key -> width and height, (0, 0) for a video; key of what is no picture, or far too large a one -> why.
    """
    sizes: dict[K, tuple[int, int]] = {}
    broken: dict[K, str] = {}
    for key, path in files.items():
        try:
            with large_pictures_allowed():
                sizes[key] = (0, 0) if is_video(path) else header(path, processor)
        except PictureError as error:
            broken[key] = error.reason
    return sizes, broken
