"""Errors of libraries become one of ours that names what failed; ours and interrupts pass."""

import pickle

import pytest
import torch

from clasp_calib.common.containing import contained, lacks_memory, reason_of
from clasp_calib.common.errors import ComputationError, InputError


def raised(error):
    with pytest.raises(ComputationError) as caught, contained("scoring the sample '17'"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("HIP out of memory."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_want_of_memory_says_what_takes_less(error):
    assert lacks_memory(error)
    for option in ("--dtype", "--budget", "--batch", "--workers"):
        assert option in str(raised(error))


def test_an_unknown_error_is_named_with_what_failed_and_kept_as_the_cause():
    error = ValueError("Image features and image tokens do not match,\n\ttokens: 575, features 576")
    told = str(raised(error))
    assert told.startswith("scoring the sample '17' failed (ValueError: Image features and image tokens do not match, ")
    assert "give the same command again" in told
    assert "--dtype" not in told
    assert raised(error).__cause__ is error
    assert str(pickle.loads(pickle.dumps(raised(error)))) == told


def test_a_long_reason_is_cut_and_an_empty_one_has_no_colon():
    assert len(str(raised(RuntimeError("x" * 10_000)))) < 800
    assert reason_of(AssertionError()) == "AssertionError"


@pytest.mark.parametrize("error", [InputError("ours"), KeyboardInterrupt(), SystemExit(3)])
def test_errors_of_ours_and_interrupts_pass(error):
    with pytest.raises(type(error)) as caught, contained("something"):
        raise error
    assert caught.value is error
