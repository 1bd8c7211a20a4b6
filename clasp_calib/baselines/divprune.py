"""DivPrune: patches that are as far from each other as can be, by a greedy max-min choice.

Alvar et al., DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models, arXiv 2503.02175.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


def max_min_diverse(features_PD: Tensor, count: int) -> Tensor:
    """Greedy max-min choice by cosine distance; long, in rising order.

    The first is farthest from its nearest neighbour, each next one farthest from all chosen (of equal ones the first).

    Args:
        features_PD: floating, P at least 2.
        count: how many.
    """
    unit_PD = functional.normalize(features_PD, dim=-1)
    distance_PP = 1 - unit_PD @ unit_PD.mT
    chosen = [distance_PP.kthvalue(2, dim=0).values.argmax()]
    nearest_P = distance_PP[chosen[0]].clone()
    for _ in range(count - 1):
        nearest_P[chosen[-1]] = -torch.inf
        chosen.append(nearest_P.argmax())
        nearest_P = torch.minimum(nearest_P, distance_PP[chosen[-1]])
    return torch.stack(chosen).sort().values


@dataclass(frozen=True)
class DivPrune(InputMethod):
    """On the projected tokens of all tiles together, as they would enter the decoder; kept tokens stay in order.

    Tokens that end lines are no candidates (for the authors they are).
    """

    name: ClassVar[str] = "divprune"
    paper: ClassVar[str] = "arXiv 2503.02175"
    by_tile: ClassVar[bool] = False
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "9.8%": {"keep": "9.8%"},
        **{str(n): {"keep": str(n)} for n in (192, 128, 64)},
    }

    keep: str = "9.8%"

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        return Kept(token_P[max_min_diverse(image.features_ND[token_P].float(), count)])
