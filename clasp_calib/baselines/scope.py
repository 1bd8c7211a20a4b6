"""SCOPE: patches that are salient and cover what is not covered yet, one after the other.

Deng et al., SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs, arXiv 2510.24214; released
in https://github.com/kinredon/SCOPE (commit a01b98f, ``scope/clip_encoder.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.baselines.knobs import require_weight
from clasp_calib.runtime.encoding import Encoded, Kept


def salient_cover(states_PC: Tensor, saliency_P: Tensor, count: int, power: float = 1.0) -> Tensor:
    """Greedy choice by a power of saliency times gain in coverage (of equal ones the first); long, in rising order.

    A patch is covered as well as the most similar chosen one covers it, by cosine, and not less than 0. The gain of a
    candidate is the sum over all patches of what it would add.

    Args:
        states_PC: what similarity (cosine) is of, floating.
        saliency_P: floating, not negative.
        count: how many are chosen.
        power: from 0 up, of the saliency.
    """
    unit_PC = functional.normalize(states_PC, dim=-1)
    cosine_PP = unit_PC @ unit_PC.mT
    covered_P, free_P = torch.zeros_like(saliency_P), torch.ones_like(saliency_P, dtype=torch.bool)
    for _ in range(count):
        gain_P = (cosine_PP - covered_P[:, None]).clamp_min(0).sum(0)
        best = _worth(gain_P, saliency_P, power).masked_fill(~free_P, -torch.inf).argmax()
        free_P[best] = False
        covered_P = torch.maximum(covered_P, cosine_PP[best])
    return (~free_P).nonzero().flatten()


def _worth(gain_P: Tensor, saliency_P: Tensor, power: float) -> Tensor:
    """What is in the order of gain times saliency to a power, finite: a power above 1 may be too small for a float."""
    if power <= 1:
        return gain_P * saliency_P**power
    worth_P = gain_P.double().log() / power + saliency_P.double().log()
    return worth_P.nan_to_num(neginf=torch.finfo(worth_P.dtype).min)


@dataclass(frozen=True)
class Scope(InputMethod):
    """Saliency is class attention to the power ``alpha``, similarity that of the states before the projector.

    Kept tokens stay in order and are renumbered. Where the tower has no class token, the mean attention of all patches
    stands in, and states are taken after the merger.
    """

    name: ClassVar[str] = "scope"
    paper: ClassVar[str] = "arXiv 2510.24214"
    attends: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64)}

    keep: str = "64"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_weight(self, "alpha")

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        cell_P = image.cells(token_P)
        saliency_P = attention.received().mean(0)[cell_P]
        return Kept(token_P[salient_cover(image.states_UC[cell_P].float(), saliency_P, count, self.alpha)])
