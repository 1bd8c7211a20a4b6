"""ToMe: in every block of the vision tower, the most alike tokens are merged in pairs.

Bolya et al., Token Merging: Your ViT But Faster, arXiv 2210.09461.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.mechanisms.merging import Merge, TowerTokens
from clasp_calib.baselines.tower_method import TowerMethod
from clasp_calib.runtime.adapters.adapter import Adapter


def bipartite_match(key_Rtd: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Soft matching between every second token and the others; the first token, of class, is never merged.

    Every token of the first set is matched with the one of the second whose key is nearest in cosine (of equal ones
    the first), and the ``count`` best matches are made (likewise).

    Args:
        key_Rtd: mean over heads, floating.
        count: at most half of the tokens that are no class token.

    Returns:
        Indices into all tokens, long: which stay of the first set, in order [R, s], which are merged [R, count], and
        into which of the second set.
    """
    unit_Rtd = functional.normalize(key_Rtd, dim=-1)
    cosine_Rab = unit_Rtd[:, ::2] @ unit_Rtd[:, 1::2].mT
    cosine_Rab[:, 0] = -torch.inf
    best_Ra, into_Ra = cosine_Rab.max(-1)
    order_Ra = best_Ra.argsort(dim=1, descending=True, stable=True)
    merged, stay = order_Ra[:, :count], order_Ra[:, count:].sort(dim=1).values
    return 2 * stay, 2 * merged, 2 * into_Ra.gather(1, merged) + 1


def merge_pairs(tokens: TowerTokens, key_Rtd: Tensor, count: int) -> TowerTokens:
    """Merge ``count`` tokens into others, states averaged by size; what stays of the first set comes first."""
    stay, merged, into = bipartite_match(key_Rtd, count)
    weighted_RtC = tokens.states_RtC * tokens.size_Rt1
    moved_RkC = weighted_RtC.gather(1, _wide(merged, weighted_RtC))
    weighted_RtC = weighted_RtC.scatter_add(1, _wide(into, weighted_RtC), moved_RkC)
    size_Rt1 = tokens.size_Rt1.scatter_add(1, into[:, :, None], tokens.size_Rt1.gather(1, merged[:, :, None]))
    second = torch.arange(1, key_Rtd.shape[1], 2, device=stay.device).expand(len(stay), -1)
    left = torch.cat([stay, second], dim=1)
    states_RtC = (weighted_RtC / size_Rt1).gather(1, _wide(left, weighted_RtC))
    return TowerTokens(states_RtC, size_Rt1.gather(1, left[:, :, None]), tokens.place_Rt.gather(1, left))


def _wide(index_Rk: Tensor, states_RtC: Tensor) -> Tensor:
    return index_Rk[:, :, None].expand(-1, -1, states_RtC.shape[2])


@dataclass(frozen=True)
class ToMe(TowerMethod):
    """All blocks up to the projected state merge; attention counts a merged token as what it stands for.

    LLaVA-1.5 reads 23 blocks of its tower, so that the paper's 16 a block leave 208 of 576.
    """

    name: ClassVar[str] = "tome"
    paper: ClassVar[str] = "arXiv 2210.09461"
    proportional: ClassVar[bool] = True
    halves: ClassVar[bool] = True

    rate: float = 16

    def blocks(self, adapter: Adapter) -> range:
        """See `TowerMethod`."""
        return range(adapter.own_layer)

    def merge(self, count: int, side: int) -> Merge:
        """See `TowerMethod`."""

        def merge(tokens: TowerTokens, _: Tensor, key_RHtd: Tensor, __: float) -> TowerTokens:
            return merge_pairs(tokens, key_RHtd.float().mean(1), count)

        return merge
