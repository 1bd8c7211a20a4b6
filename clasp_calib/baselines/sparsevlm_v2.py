"""SparseVLM v2 ("SparseVLM+"): ratings freed of the positions' own share, by the heads that look at the picture.

Zhang et al., code of December 2025; the first version is arXiv 2410.04417.

H heads, R raters and N visual tokens of one row, d width of a head.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.knobs import require_shares
from clasp_calib.baselines.mechanisms.row_stages import Row
from clasp_calib.baselines.sparsevlm import SparseVLM
from clasp_calib.runtime.stages import Rope


def rating(attention_HRN: Tensor, bias_RN: Tensor, heads: int = 14) -> Tensor:
    """Rating [N] of the visual tokens: attention over positional bias, mean over the best heads and all raters.

    Args:
        attention_HRN: attention of the raters.
        bias_RN: as `positional_bias` gives it. It can be negative for far tokens where d is small; SparseVLM divides
            by it all the same, and so do we.
        heads: heads with the largest total, which alone count.
    """
    freed_HRN = attention_HRN / bias_RN
    best_h = first_largest(freed_HRN.sum((1, 2)), heads)
    return freed_HRN[best_h].mean((0, 1))


def positional_bias(rater_rope: Rope, visual_rope: Rope) -> Tensor:
    """What the rotary positions alone make of queries and keys of ones: their scaled products [R, N].

    Args:
        rater_rope: cosines and sines [R, d] of the raters, as the decoder's layers get them.
        visual_rope: the same [N, d] of the visual tokens.
    """
    rotated = []
    for cos_Td, sin_Td in (rater_rope, visual_rope):
        half = cos_Td.shape[1] // 2
        rotated.append(cos_Td.float() + torch.cat([-sin_Td[:, :half], sin_Td[:, half:]], dim=1).float())
    return rotated[0] @ rotated[1].mT / math.sqrt(rotated[0].shape[1])


@dataclass(frozen=True)
class SparseVLM2(SparseVLM):
    """Nothing comes back, and position ids are kept; stages, raters and meaning of a budget are v1.5's."""

    name: ClassVar[str] = "sparsevlm-v2"
    paper: ClassVar[str] = "arXiv 2410.04417, code v2.0"
    positions: ClassVar[str] = "keep"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "192": {"counts": (300, 200, 118)},
        "128": {"counts": (238, 108, 60)},
        "96": {"counts": (246, 54, 28)},
        "64": {"counts": (66, 34, 20)},
    }
    returns: ClassVar[bool] = False

    counts: tuple[int, ...] = (300, 200, 118)
    heads: float = 14 / 32
    """Share of the heads that count. Our choice: the code has 14 for any number of heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "heads")

    def rate(self, row: Row) -> Tensor:
        """See `SparseVLM`."""
        attention_HRN = row.attention(row.raters_R)
        bias_RN = positional_bias(*((row.rope[0][p], row.rope[1][p]) for p in (row.raters_R, row.visual_N)))
        return rating(attention_HRN, bias_RN, max(1, round(self.heads * len(attention_HRN))))
