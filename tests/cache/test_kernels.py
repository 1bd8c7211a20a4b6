"""The fused sum against a loop over layers, and against the runtime's own fusion."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from clasp_calib.cache import kernels
from clasp_calib.cache.form import Form
from clasp_calib.cache.kernels import weighted_sum
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


@pytest.mark.parametrize("compiled", [True, False])
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    layers=st.integers(1, 9),
    tokens=st.integers(1, 40),
    channels=st.integers(1, 200),
    seed=st.integers(0, 999),
    zeros=st.integers(0, 3),
)
def test_it_is_the_sum_over_layers_bit_for_bit(compiled, name, layers, tokens, channels, seed, zeros):
    stored, values = case(name, layers, tokens, channels, seed)
    weights = np.random.default_rng(seed).random(layers).astype(np.float32)
    weights[: min(zeros, layers - 1)] = 0
    slabs = [stored.at(slice(at, at + 1)) for at in range(layers)]
    out = np.full((tokens, channels), np.nan, np.float32)
    if compiled:
        assert kernels.compiled(name) is not None
        weighted_sum(slabs, weights, name, out)
    else:
        used = [(slab, weight) for slab, weight in zip(slabs, weights, strict=True) if weight]
        kernels.sum_by_torch(used, name, out)
    assert out.tobytes() == reference(values, weights).tobytes()


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


def test_a_layer_of_weight_zero_is_not_read():
    stored, _ = case("float16", 2, 3, 5, 0)
    stored.data_LTC[1] = np.inf
    out = np.empty((3, 5), np.float32)
    weighted_sum([stored.at(slice(0, 1)), stored.at(slice(1, 2))], [0.5, 0.0], "float16", out)
    assert np.isfinite(out).all()


@pytest.fixture
def without_kernels(monkeypatch):
    monkeypatch.setitem(sys.modules, "clasp_calib.cache.compiled", None)
    kernels.compiled.cache_clear()
    kernels.trouble.cache_clear()
    yield
    kernels.compiled.cache_clear()
    kernels.trouble.cache_clear()


def test_a_machine_on_which_numba_does_not_work_is_told(without_kernels):
    with pytest.warns(UserWarning, match="numba does not work here .*; cached layers are mixed by torch"):
        assert kernels.compiled("float16") is None


def test_who_has_not_installed_numba_is_not_told(without_kernels, monkeypatch, recwarn):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert kernels.compiled("float16") is None
    assert not recwarn.list
