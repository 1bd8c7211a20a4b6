"""The fused sum ``sum_l w_l X_l`` straight over mapped slabs, compiled by numba if it is there, or else by torch.

Torch would widen each slab into memory and read it again; here four layers at a time are widened in registers, and
the sums of a block stay in the first-level cache, so that memory is read once. Both add in float32, layer after
layer and without fused multiply-add, and give the same bits.

Physical limit: ``preadv`` of k layers moves 6 k bytes a value (2 read, 2 of the destination's line fetched, 2
written), the sum 2 k read and 8 of its own (4 fetched, 4 written). Where memory binds, the sum of 4 layers in a
16-bit precision is 24 / 16 = 1.5 times as fast as ``preadv`` of the same bytes, and faster where its own line stays
in a cache. benchmarks/cache.py measures the gap.

Shape suffixes: T tokens, C channels.
"""

import importlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clasp_calib.cache.precision import PRECISIONS, Stored

Floats = npt.NDArray[np.float32]
Kernel = Callable[[npt.NDArray[np.uint64], npt.NDArray[np.uint64], Floats, Floats, int], None]


def mixtures(slabs: Sequence[Stored], weights_ML: Floats, precision: str, out_MTC: Floats | None = None) -> Floats:
    """Several mixtures of a picture's slabs; arguments as for `weighted_sum`, ``out_MTC`` is made when it is None."""
    if out_MTC is None:
        out_MTC = np.empty((len(weights_ML), *slabs[0].data_LTC.shape[1:]), np.float32)
    for weights_L, fused_TC in zip(weights_ML, out_MTC, strict=True):
        weighted_sum(slabs, weights_L, precision, fused_TC)
    return out_MTC


def weighted_sum(slabs: Sequence[Stored], weights: Sequence[float] | Floats, precision: str, out_TC: Floats) -> None:
    """Write the mixture of a picture's slabs into ``out_TC``.

    A layer of weight 0 is not read. A lone layer of weight 1 is given as it is, bit for bit.

    Args:
        slabs: one a layer; L is 1 in each.
        weights: one a layer.
        precision: of the slabs, a key of `PRECISIONS`.
        out_TC: float32 [T, C], C-contiguous.
    """
    used = [(slab, np.float32(weight)) for slab, weight in zip(slabs, weights, strict=True) if weight != 0]
    kernel = compiled(precision)
    if kernel is None or not used or (len(used) == 1 and used[0][1] == 1):
        sum_by_torch(used, precision, out_TC)
        return
    data = np.array([_address(slab.data_LTC) for slab, _ in used], np.uint64)
    scales = [_address(slab.scale_LTG) for slab, _ in used if slab.scale_LTG is not None]
    kernel(data, np.array(scales, np.uint64), np.array([w for _, w in used], np.float32), out_TC, out_TC.shape[1])


def sum_by_torch(used: Sequence[tuple[Stored, np.float32]], precision: str, out_TC: Floats) -> None:
    """The same without numba."""
    total_TC = torch.from_numpy(out_TC)
    total_TC.zero_()
    for slab, weight in used:
        layer_TC = PRECISIONS[precision].decode(Stored(*map(np.array, slab.parts)))[0].float()
        if weight == 1 and len(used) == 1:
            total_TC.copy_(layer_TC)
        else:
            total_TC += layer_TC * float(weight)


@cache
def trouble() -> str:
    """Why numba does not work on this machine; empty where it does. Compiles nothing."""
    try:
        importlib.import_module("clasp_calib.cache.compiled")
    except Exception as error:  # Whatever keeps numba from working here (no wheel, another LLVM): torch works.
        return str(error) or type(error).__name__
    return ""


@cache
def compiled(precision: str) -> Kernel | None:
    """The compiled kernel, or None where numba is not installed, or installed and not working, which is warned of.

    Compiling takes a second or two, once a process and precision.
    """
    if reason := trouble():
        if find_spec("numba"):
            warnings.warn(
                f"numba does not work here ({reason}); cached layers are mixed by torch, more slowly", stacklevel=2
            )
        return None
    from clasp_calib.cache.compiled import KERNELS

    kernel: Any = KERNELS.get(precision)
    return kernel  # type: ignore[no-any-return]


def _address(array: npt.NDArray[Any]) -> int:
    """Of the first value. ``array.ctypes.data`` says the same, but makes an object for it: ten times as slow."""
    address: int = array.__array_interface__["data"][0]
    return address
