"""Picture files: their content keys, and decoding them ahead of the encoder."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file
from clasp_calib.common.progress import track

T = TypeVar("T")
R = TypeVar("R")
_NAMED = 5


def image_key(path: Path) -> str:
    """The key of a picture in the store: hex sha256 of the file's bytes."""
    return sha256_file(path)


def distinct_pictures(paths: Iterable[Path]) -> dict[str, Path]:
    """Key -> the first file with that content, in the order of ``paths``.

    Raises:
        InputError: files that cannot be read; all of them are counted and the first are named.
    """
    files = list(dict.fromkeys(paths))
    keys: dict[str, Path] = {}
    broken: dict[Path, Exception] = {}
    for path in track(files, "identifying pictures", len(files)):
        try:
            keys.setdefault(image_key(path), path)
        except OSError as error:
            broken[path] = error
    refuse(broken)
    return keys


def check_headers(paths: Iterable[Path]) -> None:
    """Find files that are no pictures at all before hours are spent on the others.

    Raises:
        InputError: there are such files.
    """
    broken: dict[Path, Exception] = {}
    for path in paths:
        try:
            Image.open(path).close()
        except Exception as error:  # Pillow's readers raise whatever a malformed header makes them raise.
            broken[path] = error
    refuse(broken)


def refuse(broken: Mapping[Path, Exception], done: str = "") -> None:
    """Raise one InputError for all broken files, or do nothing when there are none."""
    if broken:
        named = "; ".join(f"{path}: {error}" for path, error in list(broken.items())[:_NAMED])
        more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise InputError(
            f"{len(broken)} pictures cannot be read ({named}{more}); "
            f"mend these files or remove their rows, and run again{done}"
        )


def ahead(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``map`` in a few threads that work ahead of the consumer by no more than their number."""
    # Our choice: decoding and resizing a picture takes a CPU core several times as long as encoding it takes
    # a data-centre GPU, so one core that takes turns with the encoder would leave it idle.
    threads = min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
