"""MustDrop: tokens are dropped in the tower, in the prefill and from the cache (Liu et al. 2024, arXiv 2411.10803).

N patches of one picture, M tokens after merging, C width of the tower, W text tokens of one row.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.method import first_largest


def merged_windows(
    features_NC: Tensor, grid: tuple[int, int], threshold: float = 0.8, side: int = 3
) -> tuple[Tensor, Tensor]:
    """Windows whose patches are alike become one token each.

    Args:
        features_NC: what leaves the tower's first block, without the class token, row by row of the grid.
        grid: rows and columns of patches.
        threshold: mean cosine of a window's pairs from which on it is merged.
        side: rows and columns of a window.

    Returns:
        The tokens [M, C], merged windows first and the most alike first, then the rest in order; and for every patch
        the token that it went into, long [N].
    """
    rows, columns = grid
    place_yx = torch.arange(rows * columns, device=features_NC.device).view(rows, columns)
    # Our choice: patches beyond the last whole window stay as they are; MustDrop refuses such grids.
    whole_yx = place_yx[: rows // side * side, : columns // side * side]
    windows_Ww = whole_yx.unfold(0, side, side).unfold(1, side, side).reshape(-1, side * side)
    unit_Wwc = functional.normalize(features_NC.float(), dim=1)[windows_Ww]
    pairs = side**2 * (side**2 - 1)
    alike_W = ((unit_Wwc @ unit_Wwc.mT).sum((1, 2)) - unit_Wwc.square().sum((1, 2))) / pairs
    merge_w = first_largest(alike_W, int((alike_W >= threshold).sum()))
    token_N = torch.full((len(features_NC),), -1, device=features_NC.device)
    token_N[windows_Ww[merge_w].flatten()] = torch.arange(len(merge_w), device=token_N.device).repeat_interleave(
        side**2
    )
    rest_N = token_N < 0
    token_N[rest_N] = len(merge_w) + torch.arange(int(rest_N.sum()), device=token_N.device)
    means_wC = features_NC[windows_Ww[merge_w]].float().mean(1).to(features_NC.dtype)
    return torch.cat([means_wC, features_NC[rest_N]]), token_N


def key_tokens(class_attention_M: Tensor, share: float = 0.08) -> Tensor:
    """Tokens that are never dropped: those that the class token attends to most, at least one; bool [M]."""
    keys_M = torch.zeros(len(class_attention_M), dtype=torch.bool, device=class_attention_M.device)
    keys_M[first_largest(class_attention_M, math.ceil(share * len(keys_M)))] = True
    return keys_M


def dual_attention(attention_WM: Tensor, key_M: Tensor, total: float, single: float) -> Tensor:
    """Tokens that stay, bool [M]: key tokens, and what the text as a whole or one token of it looks at.

    Args:
        attention_WM: attention of the text after the picture, mean over heads.
        key_M: bool, key tokens.
        total: share of all the text's attention to the picture that saves a token (``global_thr``).
        single: attention of one text token that saves a token (``individual_thr``).
    """
    sum_M, most_M = attention_WM.sum(0), attention_WM.amax(0)
    return key_M | (sum_M >= total * sum_M.sum()) | (most_M >= single)
