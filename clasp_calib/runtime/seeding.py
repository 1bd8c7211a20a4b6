"""What k-means starts from: tokens unlike the pivots, or tokens unlike each other.

The paper's seeds are the tokens least redundant with the pivots. Its Proposition 2 shows that they have the smallest
sum of redundancies, and the sum says nothing about how far seeds are from each other: what is far from the pivots is
often alike. A farthest-first traversal (Gonzalez, https://doi.org/10.1016/0304-3975(85)90224-5) takes one seed at a
time, the token that is farthest from what was taken before; no set of as many seeds leaves the farthest token at less
than half the distance.

B rows, N visual tokens of a row, K seeds, R rows of B that are traversed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clasp_calib.common.pruning_options import FARTHEST, REDUNDANCY

# Cosines this near are equal. The two members of a cluster are equally near its centre, exactly, so that
# floating-point noise would choose between them.
TIE = 1e-5
# Below and above every cosine: what has nothing beside it, and what must not be chosen.
NOTHING, TAKEN = -2.0, 2.0
# Unit vectors whose mean is shorter than the root of this cancel out: what is left of them has the direction of
# rounding errors. Relative to the number of vectors, because the errors of their sum grow with it.
NO_DIRECTION = 1e-4


def seeds(
    gram_BNN: Tensor, pool_BN: Tensor, nearness_BN: Tensor, clusters: Sequence[int], seeding: Sequence[str]
) -> Tensor:
    """Tokens that are the first centres, long [B, K]; K is the largest number of clusters of a row.

    Args:
        gram_BNN: float32 cosines between tokens.
        pool_BN: bool, which tokens may be chosen.
        nearness_BN: see `nearness`.
        clusters: how many are wanted in every row; those behind them are not meant to be used.
        seeding: of every row, one of `clasp_calib.common.pruning_options.SEEDINGS`.
    """
    seeds_BK = redundancy(nearness_BN).masked_fill(~pool_BN, torch.inf).argsort(dim=1, stable=True)
    seeds_BK = seeds_BK[:, : max(clusters)]
    rows = [row for row, count in enumerate(clusters) if count and seeding[row] != REDUNDANCY]
    if rows:
        rows_R = torch.tensor(rows, device=gram_BNN.device)
        from_mean_R = torch.tensor([seeding[row] == FARTHEST for row in rows], device=gram_BNN.device)
        count = min(max(clusters[row] for row in rows), seeds_BK.shape[1])
        found_RK = _farthest_first(gram_BNN, rows_R, pool_BN[rows_R], nearness_BN[rows_R], from_mean_R, count)
        seeds_BK[rows_R, :count] = found_RK
    return seeds_BK


def nearness(gram_BNN: Tensor, by_relevance_BN: Tensor, pivots_B: Tensor) -> Tensor:
    """Largest cosine of every token with one of the first ``pivots_B`` of an order (eq. 13), [B, N].

    Our choice: 0 in a row without pivots, so that its empty clusters yield to the lowest indices.
    """
    most = min(int(pivots_B.max()), gram_BNN.shape[1])
    if most == 0:
        return torch.zeros_like(gram_BNN[:, 0])
    pivots_B = pivots_B.to(gram_BNN.device)
    # Rows with fewer pivots repeat their first, which does not change the maximum.
    spare_BK = torch.arange(most, device=gram_BNN.device) >= pivots_B[:, None]
    pivots_BK = torch.where(spare_BK, by_relevance_BN[:, :1], by_relevance_BN[:, :most])
    return gram_rows(gram_BNN, pivots_BK).amax(1).masked_fill((pivots_B == 0)[:, None], 0)


def redundancy(nearness_BN: Tensor) -> Tensor:
    """`nearness` rounded to 1e-5, so that near ties go by index."""
    return torch.round(nearness_BN, decimals=5)


def gram_rows(gram_BNN: Tensor, index_BK: Tensor) -> Tensor:
    """Rows of the Gram matrices, [B, K, N]."""
    rows, tokens = gram_BNN.shape[:2]
    flat = index_BK + torch.arange(rows, device=index_BK.device)[:, None] * tokens
    return gram_BNN.reshape(rows * tokens, tokens).index_select(0, flat.flatten()).view(rows, -1, tokens)


def _farthest_first(
    gram_BNN: Tensor, rows_R: Tensor, pool_RN: Tensor, nearness_RN: Tensor, from_mean_R: Tensor, count: int
) -> Tensor:
    """Seeds [R, K], each the farthest from those before: from the token nearest the mean on, or from the pivots on."""
    rows, tokens = pool_RN.shape
    gram_MN, device = gram_BNN.reshape(-1, tokens), gram_BNN.device
    offset_R1 = rows_R[:, None] * tokens
    if from_mean_R.any():
        away_RN = -_cosine_with_mean(gram_BNN if rows == len(gram_BNN) else gram_BNN[rows_R], pool_RN)
        nearness_RN = torch.where(from_mean_R[:, None], away_RN, nearness_RN)
    restart_RN = pool_RN & from_mean_R[:, None]
    nearness_RN = nearness_RN.masked_fill(~pool_RN, TAKEN)
    # The steps follow each other, so that their overhead is what a traversal costs: nothing is made anew in them.
    seeds_KR1 = torch.empty(count, rows, 1, dtype=torch.long, device=device)
    within_RN = torch.empty(rows, tokens, dtype=torch.bool, device=device)
    below_R1, place_R1 = nearness_RN.new_empty(rows, 1), torch.empty_like(seeds_KR1[0])
    cosine_RN = gram_MN.new_empty(rows, tokens)
    for step, seed_R1 in enumerate(seeds_KR1.unbind()):
        torch.amin(nearness_RN, 1, keepdim=True, out=below_R1)
        torch.le(nearness_RN, below_R1.add_(TIE), out=within_RN)
        # Of equal values `argmax` gives the first.
        torch.argmax(within_RN.view(torch.uint8), 1, keepdim=True, out=seed_R1)
        if step == 0:
            nearness_RN.masked_fill_(restart_RN, NOTHING)
        torch.add(seed_R1, offset_R1, out=place_R1)
        torch.index_select(gram_MN, 0, place_R1[:, 0], out=cosine_RN)
        torch.maximum(nearness_RN, cosine_RN, out=nearness_RN)
        nearness_RN.scatter_(1, seed_R1, TAKEN)
    return seeds_KR1[:, :, 0].T


def _cosine_with_mean(gram_RNN: Tensor, pool_RN: Tensor) -> Tensor:
    """Cosines [R, N] of all tokens with the mean of the pool; 0 where the pool cancels out and has no mean."""
    size_R1 = pool_RN.sum(1, keepdim=True).clamp_min(1)
    dots_RN = (gram_RNN * pool_RN[:, None, :]).sum(2) / size_R1
    square_R1 = (dots_RN * pool_RN).sum(1, keepdim=True) / size_R1
    return (square_R1 > NO_DIRECTION) * dots_RN / square_R1.clamp_min(NO_DIRECTION).sqrt()
