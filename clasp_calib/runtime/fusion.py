"""Fusion of vision layers: one convex mixture of their patch tokens (eq. 8-10).

B pictures, L vision layers, N patch tokens, D features of one layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.common.errors import InputError


def alpha_from_scores(scores: Tensor, tau: float) -> Tensor:
    """Mixture ``softmax(tau * scores)`` over the last dimension (eq. 8).

    Args:
        scores: layer scores ``W``, floating, any shape ``[..., L]``; minus infinity gives weight 0.
        tau: inverse temperature, above 0; small is near uniform, large near one-hot.
    """
    return torch.softmax(tau * scores, dim=-1)


def scores_from_alpha(alpha: Tensor, tau: float) -> Tensor:
    """Scores ``log(alpha) / tau`` that give back ``alpha``; minus infinity off its support."""
    return alpha.log() / tau


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


def on_last_grid(layers: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> Tensor:
    """The layers of a hierarchical tower, whose maps shrink, brought to the grid of the last (App. B.2).

    Resampled bilinearly, and smoothed first where the map shrinks, so every token stays a convex combination of
    those of its own layer; a layer that has the last grid already comes back bit for bit.

    Args:
        layers: patch tokens [B, N_l, D] of every layer, in rows of their grid, floating.
        grids: height and width of every layer's grid.

    Returns:
        [B, L, N, D], with N the tokens of the last layer, as `fuse` takes them.

    Raises:
        InputError: a layer does not fill its grid, or is of another width than the last.
    """
    height, width = grids[-1]
    brought = []
    for number, (layer_BND, (rows, columns)) in enumerate(zip(layers, grids, strict=True)):
        if layer_BND.shape[1] != rows * columns or layer_BND.shape[2] != layers[-1].shape[2]:
            raise InputError(
                f"layer {number} holds {layer_BND.shape[1]} tokens of width {layer_BND.shape[2]}; expected "
                f"{rows} x {columns} tokens of width {layers[-1].shape[2]}: only layers of one width can be mixed"
            )
        if (rows, columns) != (height, width):
            map_BDHW = layer_BND.mT.float().reshape(len(layer_BND), -1, rows, columns)
            map_BDHW = functional.interpolate(map_BDHW, size=(height, width), mode="bilinear", antialias=True)
            layer_BND = map_BDHW.flatten(2).mT.to(layer_BND.dtype)  # noqa: PLW2901
        brought.append(layer_BND)
    return torch.stack(brought, dim=1)
