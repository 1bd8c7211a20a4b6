"""Warning of pictures in different splits that are no copies but look alike: saved again, resized, slightly cropped.

Shape suffixes: N pictures, P pairs.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clasp_calib.cache import decoding_memory
from clasp_calib.cache.prepare import large_pictures_allowed
from clasp_calib.common.contents import image_key
from clasp_calib.common.errors import InputError
from clasp_calib.common.media import Media, as_seen
from clasp_calib.common.progress import note, track
from clasp_calib.common.replacing import replaced
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.pictures import readable

APART = 10
"""Bits of 64 in which the perceptual hashes of two pictures that look alike differ at most. Our choice: all of 300
scenes of the embedded benchmark stay within it when they are saved again as JPEG of quality 30, halved, or lose 1 % at
each side, and 98 % that lose 2 %; of 2 million pairs of different scenes one is, and its colours tell it apart."""
TINT = 12
"""Of 255, how far their mean colours are apart at most; the hash is blind to colour. Our choice, as above."""
_BANDS, _WIDTH = 6, 11
_NAMED = 3
_BLOCK = 4096
FILE = "looks.parquet"

_known: dict[str, int] = {}
"""Key of a picture -> its look, as `look_of` gives it."""


def look_of(image: Image.Image) -> int:
    """The perceptual hash of a picture (64 bits) and, in the 24 bits below, its mean colour.

    The hash is pHash of the library imagehash: signs of the low frequencies of a discrete cosine transform
    (https://github.com/JohannesBuchner/imagehash).
    """
    from imagehash import phash

    red, green, blue = np.asarray(image.resize((1, 1), Image.Resampling.BOX))[0, 0].tolist()
    look: int = int(str(phash(image)), 16) << 24 | red << 16 | green << 8 | blue
    return look


def warn_of_lookalikes(samples: Sequence[Sample], hints: Path | None = None) -> None:
    """Name pictures of different splits that look alike, on standard error.

    Args:
        samples: with splits; those of other splits than calibration, selection and test are passed over.
        hints: looks are remembered in a file beside this one.
    """
    sides: dict[str, tuple[Sample, Media]] = {}
    for sample in samples:
        if sample.split in ("calibration", "selection", "test"):
            for picture in sample.media:
                sides.setdefault(image_key(picture), (sample, picture))
    if len({sample.split for sample, _ in sides.values()}) < 2:
        return
    looks = _looks({key: picture for key, (_, picture) in sides.items()}, hints)
    splits = [str(sides[key][0].split) for key in looks]
    found = [pair for pair in alike(list(looks.values())) if splits[pair[0]] != splits[pair[1]]]
    if found:
        keys = list(looks)
        named = "; ".join(
            " and ".join("{1} ({0.split}, sample {0.id!r})".format(*sides[keys[place]]) for place in pair)
            for pair in found[:_NAMED]
        )
        more = f"; and {len(found) - _NAMED} more pairs" if len(found) > _NAMED else ""
        note(
            f"warning: pictures of different splits look alike: {named}{more}; if they show the same, give them one "
            "split: what was tuned on tells nothing in a test"
        )


def alike(looks: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of places of looks that are within `APART` bits and `TINT`, ascending; of equal looks each with the first.

    Not every pair is compared. Two hashes within 10 bits agree in one of 6 bands but for one bit, so candidates are
    looked up by bands (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing").
    """
    first: dict[int, int] = {}
    for place, look in enumerate(looks):
        first.setdefault(look, place)
    pairs = {(first[look], place) for place, look in enumerate(looks) if first[look] != place}
    different = list(first)
    hashes_N = np.array([look >> 24 for look in different], dtype=np.uint64)
    colours_N3 = np.array([[look >> 16 & 255, look >> 8 & 255, look & 255] for look in different], dtype=np.int16)
    for one_P, other_P in _candidates(hashes_N):
        near_P = np.bitwise_count(hashes_N[one_P] ^ hashes_N[other_P]) <= APART
        near_P &= (np.abs(colours_N3[one_P] - colours_N3[other_P]) <= TINT).all(-1)
        for one, other in zip(one_P[near_P].tolist(), other_P[near_P].tolist(), strict=True):
            # Both ascend: `different` is in the order of first places.
            pairs.add((first[different[one]], first[different[other]]))
    return sorted(pairs)


def _candidates(hashes_N: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Places of pairs, the lesser first, that agree in a band but for one bit."""
    for band in range(_BANDS):
        values_N = hashes_N >> np.uint64(band * _WIDTH) & np.uint64((1 << _WIDTH) - 1)
        order_N = np.argsort(values_N)
        sorted_N = values_N[order_N]
        for flip in [0, *(1 << bit for bit in range(_WIDTH))]:
            for begin in range(0, len(hashes_N), _BLOCK):
                wanted = values_N[begin : begin + _BLOCK] ^ np.uint64(flip)
                low = np.searchsorted(sorted_N, wanted)
                count = np.searchsorted(sorted_N, wanted, side="right") - low
                one_P = np.repeat(np.arange(begin, begin + len(wanted)), count)
                within_P = np.arange(len(one_P)) - np.repeat(np.cumsum(count) - count, count)
                other_P = order_N[np.repeat(low, count) + within_P]
                yield one_P[one_P < other_P], other_P[one_P < other_P]


def _looks(pictures: Mapping[str, Media], hints: Path | None) -> dict[str, int]:
    """Key -> look; pictures that cannot be decoded are passed over: whoever needs them says so."""
    place = None if hints is None else hints.with_name(FILE)
    if place is not None:
        _recall(place)
    new = {key: picture for key, picture in pictures.items() if key not in _known}
    with large_pictures_allowed(), ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as threads:
        made = threads.map(_look, new.values())
        for key, look in zip(new, track(made, "looking for pictures that look alike", len(new)), strict=True):
            if look is not None:
                _known[key] = look
    if new and place is not None:
        _remember(place)
    return {key: _known[key] for key in pictures if key in _known}


def _look(picture: Media) -> int | None:
    with suppress(InputError), readable(picture) as (image, pixels), decoding_memory.taken(pixels):
        image.draft("RGB", (128, 128))  # a JPEG is decoded at an eighth of its size, which the hash does not see
        return look_of(as_seen(image))
    return None


def _recall(place: Path) -> None:
    import pyarrow.parquet as pq

    with suppress(Exception):  # It only saves time.
        columns = pq.read_table(place).to_pydict()
        _known.update(zip(columns["key"], (int(look, 16) for look in columns["look"]), strict=True))


def _remember(place: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with suppress(OSError, InputError), replaced(place) as partial:
        pq.write_table(pa.table({"key": list(_known), "look": [f"{look:022x}" for look in _known.values()]}), partial)
