"""HiRED: the most attended patches, and between tiles a budget by what the first layer of the tower looks at.

Arif et al., HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language Models,
arXiv 2408.10945.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clasp_calib.baselines.choosing import first_largest, proportional
from clasp_calib.baselines.fastervlm import most_attended
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.encoding import Encoded, Kept


def looked_at(attention_HP: Tensor, grid: tuple[int, int], cut: tuple[int, int], count: int) -> list[int]:
    """Of the ``count`` most attended patches of the whole picture, how many fall into each part of it.

    Args:
        attention_HP: attention from the class token, of the patches of ``grid`` line by line.
        grid: rows and columns of patches.
        cut: rows and columns of parts.
        count: how many patches vote.
    """
    patch_C = first_largest(attention_HP.sum(0), count)
    row_C, column_C = patch_C // grid[1] * cut[0] // grid[0], patch_C % grid[1] * cut[1] // grid[1]
    return torch.bincount(row_C * cut[1] + column_C, minlength=cut[0] * cut[1]).tolist()


@dataclass(frozen=True)
class HiRED(InputMethod):
    """A share ``alpha`` of the tokens for the whole picture; the rest between the tiles that show its parts.

    Ranked by the class attention of the block that makes the projected state (so on a model without tiles the
    choice is FasterVLM's); the tiles' shares are the votes of the first block. Kept tokens stay in order.

    Our choice: a share that is larger than what a tile shows goes to the other tiles, so that the count is met.
    """

    name: ClassVar[str] = "hired"
    paper: ClassVar[str] = "arXiv 2408.10945"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "20%": {"keep": "20%"},
        **{str(n): {"keep": str(n)} for n in (192, 128, 64)},
    }

    keep: str = "20%"
    alpha: float = 0.5

    def lacks(self, model: nn.Module, adapter: Adapter) -> str | None:
        """See `Method`."""
        return None if adapter.class_tokens else "its tower has no class token, whose attention shares the budget out"

    def tower_blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """The first, and the one before the projector."""
        return (0, adapter.attention_block)

    def allot(self, image: Encoded, tiles: Sequence[Tensor], count: int) -> list[int]:
        """See the class; tiles that are cut off altogether have no part."""
        if len(tiles) == 1:
            return [count]
        grid, cut = image.layout.grid, image.layout.cut
        patches, sizes = grid[0] * grid[1], [len(token_P) for token_P in tiles]
        votes = looked_at(
            image.attention[0].received()[:, :patches], grid, cut, max(int(patches * (1 - self.alpha)), 1)
        )
        shown = [int(image.cells(token_P)[0]) // patches for token_P in tiles]
        parts = [float(votes[tile - 1]) for tile in shown[1:]]
        rest = proportional(parts, count - int(count * self.alpha), sizes[1:])
        # What the parts cannot take goes back to the whole picture, and the other way round.
        whole = min(count - sum(rest), sizes[0])
        return [whole, *proportional(parts, count - whole, sizes[1:])]

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        attention_HU = image.attention[max(image.attention)].received()
        return Kept(token_P[most_attended(attention_HU[:, image.cells(token_P)], count)])
