"""Each precision keeps what it can hold, and says so where it cannot."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from clasp_calib.cache.form import Form
from clasp_calib.cache.precision import GROUP, PRECISIONS, PrecisionError, precision_of
from clasp_calib.common.errors import CacheError

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 150))


def normal(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), name=st.sampled_from(["float16", "bfloat16"]))
def test_halves_come_back_bit_for_bit(shape, seed, name):
    precision = precision_of(name)
    halves = normal(shape, seed).to(getattr(torch, name))
    stored = precision.encode(halves)
    assert stored.data_LTC.dtype == precision.data
    assert precision.decode(stored).dtype == halves.dtype
    assert torch.equal(precision.decode(stored).view(torch.int16), halves.view(torch.int16))


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), size=st.sampled_from([0.0, 1e-6, 1.0, 300.0]))
def test_int8_errs_by_half_a_step_of_its_group(shape, seed, size):
    precision = precision_of("int8")
    values = normal(shape, seed) * size
    stored = precision.encode(values)
    assert stored.scale_LTG.shape == (*shape[:2], Form(shape[2], precision, None).parts[1][0])
    decoded = precision.decode(stored)
    for first in range(0, shape[2], GROUP):
        group = values[..., first : first + GROUP]
        step = torch.from_numpy(stored.scale_LTG[..., first // GROUP].astype(np.float32))[..., None]
        largest = group.abs().amax(-1, keepdim=True)
        assert bool((step <= largest / 127 * 1.001 + 6.2e-5).all())
        # Half a step, and what the rounding of the scale to float16 takes from the largest values.
        assert bool(((decoded[..., first : first + GROUP] - group).abs() <= step / 2 + largest * 6e-4 + 1e-9).all())


def test_int8_takes_half_the_bytes():
    halves, integers = (Form(1024, precision_of(name), None).token_bytes for name in ("float16", "int8"))
    assert halves / integers == pytest.approx(1.94, abs=0.01)


@pytest.mark.parametrize(("name", "value"), [("float16", 7e4), ("int8", 1e8), ("bfloat16", 3.4e38)])
def test_what_cannot_be_held_is_named(name, value):
    values = torch.zeros(3, 4, 70)
    values[1, 2, 66] = value
    with pytest.raises(PrecisionError, match=f"which {name} cannot hold") as caught:
        precision_of(name).encode(values)
    assert caught.value.layer == 1


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_not_the_layer_s_fault(name, value):
    values = torch.zeros(3, 4, 70)
    values[2, 3, 69] = value
    with pytest.raises(PrecisionError, match=r"not finite, as the tower made them.*--dtype bfloat16") as caught:
        precision_of(name).encode(values)
    assert caught.value.layer == 2
    assert "leave" not in str(caught.value)


def test_an_unknown_precision_is_refused():
    with pytest.raises(CacheError, match="cannot keep features as 'fp8'; expected one of float16, bfloat16, int8"):
        precision_of("fp8")
