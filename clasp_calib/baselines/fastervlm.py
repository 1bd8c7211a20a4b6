"""FasterVLM: the patches that the class token of the vision tower attends to most.

Zhang et al., [CLS] Attention is All You Need for Training-Free Visual Token Pruning, arXiv 2412.01818.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


def most_attended(attention_HP: Tensor, count: int) -> Tensor:
    """Patches whose attention, mean over heads, is largest (of equal ones the first), in rising order; long.

    Args:
        attention_HP: attention from the class token, floating.
        count: how many.
    """
    return first_largest(attention_HP.mean(0), count).sort().values


@dataclass(frozen=True)
class FasterVLM(InputMethod):
    """Class attention of the block that makes the projected state; kept tokens stay in order and are renumbered.

    Where the tower has no class token, the mean attention of all patches stands in.
    """

    name: ClassVar[str] = "fastervlm"
    paper: ClassVar[str] = "arXiv 2412.01818"
    attends: ClassVar[bool] = True
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (288, 144, 58, 29)}

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        return Kept(token_P[most_attended(attention.received()[:, image.cells(token_P)], count)])
