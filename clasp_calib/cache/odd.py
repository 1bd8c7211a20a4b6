"""The list, beside a cache, of pictures that were left out of it or are not seen whole.

Later stages read it, to say why a picture is missing.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clasp_calib.cache.disk import check_plain
from clasp_calib.common.errors import CacheError
from clasp_calib.common.media import Media
from clasp_calib.common.replacing import replaced

FILE = "odd-pictures.json"


@dataclass(frozen=True)
class OddPicture:
    """One file, and what is odd about it."""

    image: str
    """`place_of` it."""
    samples: tuple[str, ...]
    """Ids of the samples that name it."""
    left_out: bool
    """Whether the cache lacks it. Otherwise it is there, as the model's processor sees it."""
    reason: str


def place_of(picture: Media) -> str:
    """A file's absolute path, or what a picture in memory is called."""
    return os.path.abspath(picture) if isinstance(picture, Path) else str(picture)


def odd_pictures(root: Path) -> list[OddPicture]:
    """What is odd about the pictures of the cache at ``root``; nothing if no list is there.

    Raises:
        CacheError: the list is damaged.
    """
    path = root / FILE
    check_plain(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_known(OddPicture(**{**row, "samples": tuple(row["samples"])})) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CacheError(f"cannot read {path} ({error}); remove it, and cache-features writes it anew") from error


def _known(odd: OddPicture) -> OddPicture:
    if not all(isinstance(text, str) for text in (odd.image, odd.reason, *odd.samples)):
        raise TypeError("what should be text is none")
    return odd


def reasons_left_out(root: Path, files: Iterable[Media]) -> dict[Media, str]:
    """Those of ``files`` that the cache at ``root`` had to leave out, and why.

    Raises:
        CacheError: the list is damaged.
    """
    reasons = {odd.image: odd.reason for odd in odd_pictures(root) if odd.left_out}
    return {path: reasons[image] for path in files if (image := place_of(path)) in reasons}


def record_odd_pictures(
    root: Path, named: Sequence[tuple[str, Media]], broken: Mapping[Media, str], notes: Mapping[Media, str]
) -> tuple[OddPicture, ...]:
    """Bring the list up to date: what it says of these files is replaced, the rest stays.

    Args:
        root: the cache.
        named: id of a sample and its file.
        broken: file that was left out -> why.
        notes: file that is not seen whole -> what is not seen.

    Returns:
        What is odd about these files.

    Raises:
        CacheError: the old list is damaged, or the new one cannot be written.
    """
    samples: dict[Media, list[str]] = defaultdict(list)
    for sample, picture in named:
        samples[picture].append(sample)
    found = [
        OddPicture(place_of(picture), tuple(samples[picture]), said is broken, reason)
        for said in (broken, notes)
        for picture, reason in said.items()
    ]
    anew = {place_of(picture) for picture in samples}
    rows = [odd for odd in odd_pictures(root) if odd.image not in anew] + found
    path = root / FILE
    try:
        if rows:
            with replaced(path) as partial:
                partial.write_text(json.dumps([asdict(odd) for odd in rows], indent=1), encoding="utf-8")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(f"cannot write {path} ({error.strerror}); make room or choose another place") from error
    return tuple(found)
