"""FasterVLM: the patches that the class token of the vision tower attends to most.

Zhang et al., [CLS] Attention is All You Need for Training-Free Visual Token Pruning, arXiv 2412.01818.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from clasp_calib.baselines.method import InputMethod, first_largest
from clasp_calib.runtime.adapters.base import Adapter
from clasp_calib.runtime.encoding import Encoded, Kept


def most_attended(attention_HN: Tensor, count: int) -> Tensor:
    """Tokens whose attention, mean over heads, is largest (of equal ones the first), in rising order; long.

    Args:
        attention_HN: attention from the class token.
        count: how many.
    """
    return first_largest(attention_HN.mean(0), count).sort().values


@dataclass(frozen=True)
class FasterVLM(InputMethod):
    """Class attention of the block that makes the projected state; kept tokens stay in order and are renumbered.

    Where the picture is cut into tiles, its tokens are ranked together (the authors keep as many of every tile), and
    tokens that end a line go first. A tower without class token has the mean attention of all patches stand in.
    """

    name: ClassVar[str] = "fastervlm"
    paper: ClassVar[str] = "arXiv 2412.01818"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {"144": {"keep": "144"}, "58": {"keep": "58"}}

    def tower_blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """See `InputMethod`."""
        return (adapter.attention_block,)

    def choose(self, image: Encoded) -> Kept:
        """See `InputMethod`."""
        (attention,) = image.attention.values()
        attention_NH = image.by_token(attention.received().mT, line_end=-1.0)
        return Kept(most_attended(attention_NH.mT, self.count(len(attention_NH))))
