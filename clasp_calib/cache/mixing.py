"""The sum ``sum_l w_l X_l`` of a picture's layers, one slab at a time.

It adds in float32, layer after layer and without fused multiply-add, as `clasp_calib.runtime.fusion.fuse` does: both
give the same bits.

Shape suffixes: M mixtures, L layers, T tokens, C channels.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from clasp_calib.cache.precision import Precision, Stored

Floats = npt.NDArray[np.float32]


def mixtures(
    slab_of: Callable[[int], Stored], weights_ML: Floats, precision: Precision, shape: tuple[int, int]
) -> Floats:
    """Several mixtures of a picture's layers.

    A layer that has weight 0 in all of them is not asked for. A lone layer of weight 1 is given as it is, bit for bit.

    Args:
        slab_of: gives the slab of a layer, L is 1; used up before the next is asked for.
        weights_ML: float32, one row a mixture.
        precision: of the slabs.
        shape: of one: T, C.

    Returns:
        [M, T, C] float32.
    """
    sums_MTC, term_TC = torch.zeros(len(weights_ML), *shape), torch.empty(shape)
    alone_M = (weights_ML != 0).sum(1) == 1
    for layer, weights_M in enumerate(weights_ML.T):
        if not weights_M.any():
            continue
        layer_TC = precision.decode(slab_of(layer))[0].float()
        for sum_TC, weight, alone in zip(sums_MTC, weights_M, alone_M, strict=True):
            if alone and weight == 1:
                sum_TC.copy_(layer_TC)
            elif weight != 0:
                sum_TC.add_(torch.mul(layer_TC, float(weight), out=term_TC))
    return sums_MTC.numpy()
