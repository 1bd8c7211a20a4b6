"""The fused sum against a loop over layers, and against the runtime's own fusion."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from clasp_calib.cache.form import Form
from clasp_calib.cache.mixing import mixtures
from clasp_calib.cache.precision import precision_of
from clasp_calib.cache.store import FeatureStore
from clasp_calib.cache.writer import FeatureWriter
from clasp_calib.runtime.fusion import fuse

NAMES = ("float16", "bfloat16", "int8")


def reference(layers_LTC: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = np.zeros(layers_LTC.shape[1:], np.float32)
    for layer_TC, weight in zip(layers_LTC, weights, strict=True):
        if weight != 0:
            total = total + weight * layer_TC
    return total


def case(name, layers, tokens, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    precision = precision_of(name)
    stored = precision.encode(torch.randn(layers, tokens, channels, generator=generator))
    return stored, precision.decode(stored).float().numpy()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    layers=st.integers(1, 9),
    tokens=st.integers(1, 40),
    channels=st.integers(1, 200),
    seed=st.integers(0, 999),
    zeros=st.integers(0, 3),
)
def test_it_is_the_sum_over_layers_bit_for_bit(name, layers, tokens, channels, seed, zeros):
    stored, values = case(name, layers, tokens, channels, seed)
    weights_ML = np.random.default_rng(seed).random((2, layers)).astype(np.float32)
    weights_ML[0, : min(zeros, layers - 1)] = 0
    weights_ML[1] = np.eye(layers, dtype=np.float32)[seed % layers]
    sums = mixtures(lambda at: stored.at([at]), weights_ML, precision_of(name), (tokens, channels))
    assert sums[0].tobytes() == reference(values, weights_ML[0]).tobytes()
    assert sums[1].tobytes() == values[seed % layers].tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_store_fuses_as_the_runtime_does(name):
    stored, values = case(name, 4, 6, 70, 3)
    alpha_ML = np.array([[0.25, 0.25, 0.5, 0], [0, 0, 1, 0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    with tempfile.TemporaryDirectory() as directory:
        with FeatureWriter(Path(directory), "e", (2, 3, 5, 7), Form(70, precision_of(name), 6)) as store:
            store.put(["a"], [stored])
        with FeatureStore.open(Path(directory)) as store:
            fused = torch.from_numpy(store.fused("a", (2, 3, 5, 7), alpha_ML))
    layers_MLTC = torch.from_numpy(values).expand(3, -1, -1, -1)
    assert torch.equal(fused, fuse(layers_MLTC, torch.from_numpy(alpha_ML)))


def test_a_layer_of_weight_zero_is_not_asked_for():
    stored, _ = case("float16", 3, 3, 5, 0)
    asked = []

    def slab_of(layer):
        asked.append(layer)
        return stored.at([layer])

    mixtures(slab_of, np.array([[0.5, 0, 0.5], [1, 0, 0]], np.float32), precision_of("float16"), (3, 5))
    assert asked == [0, 2]
