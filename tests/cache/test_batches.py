"""Batches that are read ahead: the same bytes as one by one, in rooms that are used again."""

import numpy as np
import pytest
import torch
from store_support import LAYERS, features, flip_bit, key_of, put, writer

from clasp_calib.cache.precision import PRECISIONS, Stored
from clasp_calib.cache.store import FeatureStore
from clasp_calib.common.errors import CacheError

pytestmark = pytest.mark.parametrize("layout", ["direct", "portable"])


def test_batches_hold_what_single_reads_hold(tmp_path, layout):
    with writer(tmp_path, layout=layout) as store:
        put(store, range(9))
    order = [4, 1, 1, 8, 0, 3, 7]
    with FeatureStore.open(tmp_path) as store:
        rooms, seen = set(), []
        for batch in store.batches([key_of(number) for number in order], (3, 1), 2):
            seen += [picture.data_LTC.tobytes() for picture in batch]
            rooms |= {picture.data_LTC.ctypes.data for picture in batch}
        assert seen == [features(number, (3, 1)).tobytes() for number in order]
        assert len(rooms) == 4, "every batch has memory of its own"
        assert list(store.batches([], (3, 1), 2)) == []


def test_pictures_of_different_tokens_and_scales(tmp_path, layout):
    precision, made = PRECISIONS["int8"], {}
    given = {"encoder": "e", "layers": LAYERS, "shape": (None, 70), "precision": "int8", "layout": layout}
    with FeatureStore.open(tmp_path, "w", **given) as store:
        for number, tokens in enumerate((4, 9, 4, 1, 9)):
            noise = torch.Generator().manual_seed(number)
            made[number] = precision.encode(torch.randn(len(LAYERS), tokens, 70, generator=noise))
            store.put([key_of(number)], [made[number]])
        read = [
            Stored(*(part.copy() for part in picture))
            for batch in store.batches([key_of(number) for number in made], LAYERS, 3)
            for picture in batch
        ]
    for got, expected in zip(read, made.values(), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_damage_is_named(tmp_path, layout):
    with writer(tmp_path, layout=layout) as store:
        put(store, range(4))
        flip_bit(tmp_path, store, 3, 4)
        batches = store.batches([key_of(number) for number in range(4)], LAYERS, 2)
        assert len(next(batches)) == 2
        with pytest.raises(CacheError, match=f"layer 4 of picture {key_of(3)}"):
            next(batches)


def test_pinned_memory(tmp_path, layout):
    with writer(tmp_path, layout=layout) as store:
        put(store, range(2))
        batches = store.batches([key_of(0), key_of(1)], LAYERS, 1, pinned=True)
        if torch.cuda.is_available():
            assert torch.from_numpy(next(batches)[0].data_LTC).is_pinned()
        else:
            with pytest.raises(CacheError, match=r"bytes of pinned memory \(.*\); read without pinned"):
                next(batches)
