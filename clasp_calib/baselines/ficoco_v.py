"""FiCoCo-V: in the later blocks of the vision tower, redundant tokens are shared out among those they look at most.

Han et al., Filter, Correlate, Compress: Training-Free Token Reduction for MLLM Acceleration, arXiv 2411.17686.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.mechanisms.merging import Merge, TowerTokens
from clasp_calib.baselines.tower_method import TowerMethod
from clasp_calib.runtime.adapters.adapter import Adapter

WINDOW = 2
QUANTILE = 0.998


def redundancy(logits_tt: Tensor, place_P: Tensor, side: int, balance: float) -> Tensor:
    """What a patch is worth: ``balance`` of the class token's look at it, less ``1 - balance`` of its looks at patches.

    Both parts are brought to length 1 over all patches. In every window of 2 x 2 places the least of those that are
    left is lowered, to half if it is positive and to twice if it is not, so that what goes is spread.

    Args:
        logits_tt: attention before the softmax, mean over heads; the class token first.
        place_P: where on a grid of ``side`` times ``side`` each patch is, long.
        side: of the grid.
        balance: beta.

    Returns:
        [P]; the lowest are the most redundant.
    """
    seen_P, looks_P = logits_tt[0, 1:], logits_tt[1:, 1:].mean(-1)
    score_P = balance * functional.normalize(seen_P, dim=0) - (1 - balance) * functional.normalize(looks_P, dim=0)
    windows = -(-side // WINDOW)
    window_P = place_P // side // WINDOW * windows + place_P % side // WINDOW
    order_P = score_P.argsort(stable=True)
    by_window = order_P[window_P[order_P].argsort(stable=True)]
    first = torch.ones_like(by_window, dtype=torch.bool)
    first[1:] = window_P[by_window][1:] != window_P[by_window][:-1]
    least = by_window[first]
    lowered = torch.where(score_P[least] > 0, score_P[least] / 2, score_P[least] * 2)
    return score_P.index_copy(0, least, lowered)


def shares(logits_tt: Tensor, merged: Tensor, left: Tensor) -> Tensor:
    """How each merged token is shared out among those that are left [merged, left]; rows sum to 1.

    Each goes to its ``m`` most looked at, in proportion to the softmax of its look; ``m`` is the largest number of a
    row's logits above that row's 0.998 quantile, at least 1.

    Args:
        logits_tt: see `redundancy`.
        merged: indices of tokens that go, long.
        left: of those that stay, the class token among them.
    """
    logits = logits_tt[merged]
    above = logits > torch.quantile(logits, QUANTILE, dim=1, keepdim=True)
    targets = min(max(int(above.sum(1).max()), 1), len(left))
    # The softmax over what is left has the ratios of that over all, and a look at oneself cannot drown the others.
    chances = logits[:, left].softmax(-1)
    best = chances.argsort(dim=1, descending=True, stable=True)[:, :targets]
    weights = torch.zeros_like(chances).scatter(1, best, chances.gather(1, best))
    return weights / weights.sum(1, keepdim=True)


def merge_one(
    states_tC: Tensor, logits_tt: Tensor, place_P: Tensor, count: int, side: int, balance: float
) -> tuple[Tensor, Tensor]:
    """Merge ``count`` patches of one image away: those left, each averaged with its shares, and their indices [t].

    Args:
        states_tC: the class token first.
        logits_tt: see `redundancy`, as ``place_P``, ``side`` and ``balance``.
        place_P: long.
        count: fewer than there are patches.
        side: of the grid.
        balance: beta.
    """
    order_P = redundancy(logits_tt, place_P, side, balance).argsort(stable=True) + 1
    merged, stay = order_P[:count].sort().values, order_P[count:].sort().values
    left = torch.cat([stay.new_zeros(1), stay])
    weights = shares(logits_tt, merged, left).to(states_tC.dtype)
    sums = states_tC[left] + weights.mT @ states_tC[merged]
    return sums / (1 + weights.sum(0))[:, None], left


@dataclass(frozen=True)
class FiCoCoV(TowerMethod):
    """Blocks of the later half, up to the projected state, merge; what is left stays in order.

    Our choices, where the authors' code differs from the paper or from itself: nothing is kept from image to image (a
    buffer of scores is there); tokens stay in order (they are sorted by score there, the class token last, and the
    next block takes the first for it); tokens are shared out among those that are left only (there by indices
    of another order). Sizes start anew in every block and do not weigh in attention, as there.
    """

    name: ClassVar[str] = "ficoco-v"
    paper: ClassVar[str] = "arXiv 2411.17686"

    rate: float = 42
    first_block: int | None = None
    """The first block that merges; the middle one by default, 12 of 24."""
    balance: float = 0.35

    def blocks(self, adapter: Adapter) -> range:
        """See `TowerMethod`."""
        middle = adapter.vision_layers // 2
        return range(middle if self.first_block is None else self.first_block, adapter.own_layer)

    def merge(self, count: int, side: int) -> Merge:
        """See `TowerMethod`."""

        def merge(tokens: TowerTokens, query_RHtd: Tensor, key_RHtd: Tensor, scaling: float) -> TowerTokens:
            parts = []
            for row, states_tC in enumerate(tokens.states_RtC):
                # The mean over heads is one product of full width.
                query_tC, key_tC = (part[row].float().transpose(0, 1).flatten(1) for part in (query_RHtd, key_RHtd))
                logits_tt = query_tC @ key_tC.mT * (scaling / query_RHtd.shape[1])
                parts.append(merge_one(states_tC, logits_tt, tokens.place_Rt[row, 1:], count, side, self.balance))
            left_Rt = torch.stack([left for _, left in parts])
            size_Rt1 = tokens.size_Rt1.new_ones(*left_Rt.shape, 1)
            return TowerTokens(
                torch.stack([states for states, _ in parts]), size_Rt1, tokens.place_Rt.gather(1, left_Rt)
            )

        return merge
