"""Fusion of vision layers: one convex mixture of their patch tokens (eq. 8-10).

B pictures, L vision layers, N patch tokens, D features of one layer.
"""

import torch
from torch import Tensor


def fuse(layers_BLND: Tensor, alpha_BL: Tensor) -> Tensor:
    """Mix the layers of every picture with its own weights (eq. 9).

    A layer with weight exactly 0 is not read, so that an infinity in it does no harm, and a one-hot mixture
    gives that layer back bit for bit.

    Args:
        layers_BLND: floating; may be an expanded view, to mix one picture in several ways.
        alpha_BL: weights, non-negative, every row of sum 1.

    Returns:
        The mixtures [B, N, D] in the dtype of ``layers_BLND``, summed in float32 or wider.
    """
    dtype = torch.promote_types(layers_BLND.dtype, torch.float32)
    weights_BL = alpha_BL.to(layers_BLND.device, dtype)
    used = alpha_BL.ne(0).any(0).nonzero().flatten().tolist()
    fused_BND = torch.zeros_like(layers_BLND[:, 0], dtype=dtype)
    for layer in used:
        weight_B11 = weights_BL[:, layer, None, None]
        term_BND = torch.where(weight_B11 == 0, 0, weight_B11 * layers_BLND[:, layer].to(dtype))
        # Replacing rather than adding for weight 1 keeps the sign of zeros: 0.0 + -0.0 is 0.0.
        fused_BND = torch.where(weight_B11 == 1, term_BND, fused_BND + term_BND)
    return fused_BND.to(layers_BLND.dtype)
