"""Pictures, most of them files: their content keys, their sizes, and those that cannot be read."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from clasp_calib.cache.prepare import is_video, large_pictures_allowed
from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file
from clasp_calib.common.media import Media, opened
from clasp_calib.common.progress import track

K = TypeVar("K")
_NAMED = 5


def image_key(picture: Media) -> str:
    """The key of a picture in the store: hex sha256 of the file's bytes, or of what is in memory."""
    return sha256_file(picture) if isinstance(picture, Path) else picture.key


def identified(paths: Iterable[Media]) -> tuple[dict[Media, str], dict[Media, str]]:
    """Find out which files are the same picture.

    Returns:
        File -> key, in the order of ``paths``; file that cannot be read -> why.
    """
    files = list(dict.fromkeys(paths))
    keys: dict[Media, str] = {}
    broken: dict[Media, str] = {}
    for path in track(files, "identifying pictures", len(files)):
        try:
            if isinstance(path, Path) and path.exists() and not path.is_file():
                broken[path] = "it is a directory" if path.is_dir() else "it is not a file"
            else:
                keys[path] = image_key(path)
        except OSError as error:
            broken[path] = error.strerror or str(error)
    return keys, broken


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


def check_headers(paths: Iterable[Media]) -> None:
    """Find files that are no pictures at all before hours are spent on the others.

    Raises:
        InputError: there are such files.
    """
    refuse(headers({path: path for path in paths})[1])


def headers(files: Mapping[K, Media]) -> tuple[dict[K, tuple[int, int]], dict[K, str]]:
    """Find files that are no pictures before hours are spent on the others.

    Args:
        files: by key.

    Returns:
        Key -> width and height, (0, 0) for a video; key of what is no picture, or far too large a one -> why.
    """
    sizes: dict[K, tuple[int, int]] = {}
    broken: dict[K, str] = {}
    for key, path in files.items():
        try:
            if is_video(path):
                sizes[key] = (0, 0)
            else:
                with large_pictures_allowed(), opened(path) as image:
                    sizes[key] = image.size
        except Exception as error:  # Pillow's readers raise whatever a malformed header makes them raise.
            broken[key] = str(error)
    return sizes, broken


def refuse(broken: Mapping[Media, object], done: str = "") -> None:
    """Raise one InputError for all broken files, or do nothing when there are none."""
    if broken:
        raise InputError(
            f"{len(broken)} pictures cannot be read ({named_with_reasons(broken)}); "
            f"mend these files or remove their rows, and run again{done}"
        )


def named_with_reasons(broken: Mapping[Media, object]) -> str:
    """The first few of these files in a line, each with what is wrong with it; empty if there are none."""
    named = "; ".join(f"{path}: {reason}" for path, reason in list(broken.items())[:_NAMED])
    return named + (f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else "")
