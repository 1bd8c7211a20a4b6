"""VisPruner: the most attended patches, and of the rest what is left when near duplicates are removed.

Zhang et al., Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs,
arXiv 2412.01818v2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.baselines.knobs import require_shares
from clasp_calib.runtime.encoding import Encoded, Kept


def important_and_diverse(attention_P: Tensor, states_PC: Tensor, count: int, important: int, step: int = 8) -> Tensor:
    """The ``important`` most attended patches, and ``count - important`` of the rest; long, in rising order.

    The rest, in order of attention, is dealt alternately into two hands; of the first those that are most like one of
    the second are removed, ``step`` at a time; what remains of the first, most alike first, and the second go on.

    Args:
        attention_P: attention from the class token, floating.
        states_PC: what likeness (cosine) is of, floating.
        count: how many are kept.
        important: how many for their attention.
        step: how many go in a round. Our choice: no more than the first hand holds, and it may hold one more than
            the second; the authors' code takes even numbers for granted.
    """
    order_P = first_largest(attention_P, len(attention_P))
    unit_PC = functional.normalize(states_PC, dim=-1)
    cosine_PP = unit_PC @ unit_PC.mT
    chosen, rest = order_P[:important], order_P[important:]
    diverse = count - important
    while (over := len(rest) - diverse) > 0 and diverse > 0:
        first, second = rest[::2], rest[1::2]
        likeness = cosine_PP[first[:, None], second].amax(1)
        alike = first_largest(likeness, len(first))
        rest = torch.cat([first[alike[min(step, over, len(first)) :]], second])
    return torch.cat([chosen, rest[:diverse]]).sort().values


@dataclass(frozen=True)
class VisPruner(InputMethod):
    """A share ``important`` for attention, the others for diversity, by the states before the projector.

    Kept tokens stay in order and are renumbered. Where the tower has no class token, the mean attention of all patches
    stands in, and states are taken after the merger.
    """

    name: ClassVar[str] = "vispruner"
    paper: ClassVar[str] = "arXiv 2412.01818"
    attends: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64, 32)}

    keep: str = "64"
    important: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "important")

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        cell_P = image.cells(token_P)
        attention_P, states_PC = attention.received().mean(0)[cell_P], image.states_UC[cell_P].float()
        return Kept(token_P[important_and_diverse(attention_P, states_PC, count, int(count * self.important))])
