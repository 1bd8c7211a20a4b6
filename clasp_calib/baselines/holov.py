"""HoloV: strips of the picture share the budget by attention and by how varied they are inside.

Zou et al., Don't Just Chase "Highlighted Tokens" in MLLMs: Revisiting Visual Holistic Context Retention,
arXiv 2510.02912.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.baselines.knobs import require, require_weight
from clasp_calib.runtime.encoding import Encoded, Kept

SMALL = 1e-6
MOST = 1e20
"""Weight of the variance beside which attention counts for nothing; what is far larger is too much for a float."""


def strip_score(features_SD: Tensor, attention_S: Tensor, alpha: float) -> Tensor:
    """Mean over a strip of 1000 times the attention plus ``alpha`` times the variance of its cosines, brought to scale.

    The variance of a token is over its cosines with the strip, its own counted as 0. A strip of one token scores
    its attention.

    Args:
        features_SD: floating.
        attention_S: from the class token.
        alpha: weight of the variance.
    """
    others = len(features_SD) - 1
    if others < 1:
        return attention_S.mean()
    unit_SD = features_SD / (features_SD.norm(dim=1, keepdim=True) + SMALL)
    cosine_SS = (unit_SD @ unit_SD.mT).fill_diagonal_(0)
    mean_S = cosine_SS.sum(1) / others
    variance_S = (cosine_SS - mean_S[:, None]).square().sum(1) / others
    scaled_S = 1e3 * attention_S
    scale = scaled_S.abs().mean() / (variance_S.abs().mean() + SMALL)
    return torch.mean(scaled_S + alpha * scale * variance_S)


def holistic(features_PD: Tensor, attention_P: Tensor, count: int, strips: int, alpha: float) -> Tensor:
    """The most attended of every strip, as many as its score gives it; strip by strip, most attended first; long.

    Shares are rounded down, and what is left goes to the strips of highest score, one each.

    Our choice: what a strip cannot fill goes to the best of the others; the authors' code puts zeros in.

    Args:
        features_PD: floating.
        attention_P: from the class token.
        count: how many are kept, at most P.
        strips: into how many runs of following patches the picture is cut, the first ones larger by one if need be.
        alpha: see `strip_score`.
    """
    patches = len(attention_P)
    cut = torch.arange(patches, device=attention_P.device).tensor_split(min(strips, patches))
    scores = torch.stack([strip_score(features_PD[strip], attention_P[strip], alpha) for strip in cut])
    weights = scores / (scores.sum() + SMALL)
    shares = (weights * count).floor().long().clamp(min=0).tolist()
    ranked = first_largest(weights, len(cut)).tolist()
    for strip in ranked[: count - sum(shares)]:
        shares[strip] += 1
    sizes = [len(strip) for strip in cut]
    over = count - sum(min(share, size) for share, size in zip(shares, sizes, strict=True))
    for strip in ranked:
        room = max(sizes[strip] - shares[strip], 0)
        shares[strip] += min(room, over)
        over -= min(room, over)
    return torch.cat([s[first_largest(attention_P[s], share)] for s, share in zip(cut, shares, strict=True)])


@dataclass(frozen=True)
class HoloV(InputMethod):
    """On the projected tokens of a tile, 16 strips line by line; kept tokens in the order of `holistic`, renumbered.

    Where positions are kept (several axes) the order is lost: tokens take each other's places. Where the tower has
    no class token, the mean attention of all patches stands in.
    """

    name: ClassVar[str] = "holov"
    paper: ClassVar[str] = "arXiv 2510.02912"
    in_order: ClassVar[bool] = False
    attends: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64)}

    keep: str = "64"
    strips: int = 16
    alpha: float = 0.09

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "strips", self.strips >= 1, "at least one strip")
        require_weight(self, "alpha", MOST)

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        attention_P = attention.received().mean(0)[image.cells(token_P)]
        features_PD = image.features_ND[token_P].float()
        return Kept(token_P[holistic(features_PD, attention_P, count, self.strips, self.alpha)])
