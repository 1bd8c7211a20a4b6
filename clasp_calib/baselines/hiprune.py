"""HiPrune: patches that a middle block of the tower looks at, their neighbours, and what its last block looks at.

Liu et al., HiPrune: Hierarchical Attention for Efficient Token Pruning in Vision-Language Models, arXiv 2508.00553;
released in https://github.com/Danielement321/HiPrune (read at commit 78324f3 of its copy mmdbhs/HiPrune-fork,
``LLaVA/llava/model/llava_arch.py`` and ``Qwen2_5_VL/qwen2_5_vl_HiPrune.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.encoding import Encoded, Kept


def hierarchical(middle_P: Tensor, last_P: Tensor, columns: int, count: int, share: float) -> Tensor:
    """Anchors, buffers around them, and registers; long, in rising order.

    Anchors are the largest of ``middle_P``, a fifth of a share of ``count`` (to the nearest, halves to the even
    number). Buffers are the patches before, after, above and below, by index: at the end of a line the one after is
    the first of the next line, as released, and beyond the picture stands its first or last patch. Registers are the
    largest of ``last_P`` among the others. Of equal ones the first.

    Our choice: where anchors and buffers are more than are kept, as only a large share makes them, anchors are left
    out, the least first.

    Args:
        middle_P: attention that patches receive in the middle block, floating.
        last_P: the same in the last.
        columns: patches of a line.
        count: how many are kept.
        share: of them that are anchors and buffers.
    """
    anchors = first_largest(middle_P, round(count * share / 5))
    steps = anchors.new_tensor([0, -1, 1, -columns, columns])

    def around() -> Tensor:
        places: Tensor = torch.unique((anchors[:, None] + steps).clamp(0, len(middle_P) - 1))
        return places

    while len(around()) > count:
        anchors = anchors[:-1]
    others_P = last_P.index_fill(0, around(), -torch.inf)
    registers = first_largest(others_P, count - len(around()))
    return torch.cat([around(), registers]).sort().values


@dataclass(frozen=True)
class HiPrune(InputMethod):
    """Attention is what a patch receives from all tokens of its tile, the class token among them, mean over heads.

    The middle block is the 9th of CLIP's 24, and in a tower without class token the 16th of 32, or the last without
    windows before it. Kept tokens stay in order and are renumbered.

    Our choice: in a tower of other depth the middle block is as deep in proportion.
    """

    name: ClassVar[str] = "hiprune"
    paper: ClassVar[str] = "arXiv 2508.00553"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {str(n): {"keep": str(n)} for n in (192, 128, 64)}

    keep: str = "64"
    share: float = 0.1
    """Share of the kept tokens that are anchors and buffers."""

    def tower_blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """The middle one, and the one before the projector."""
        depth = 9 / 24 if adapter.class_tokens else 16 / 32
        middle = max(int(depth * adapter.vision_layers + 0.5), 1) - 1
        whole = getattr(adapter.config.vision_config, "fullatt_block_indexes", None)
        if whole is not None:
            middle = max([block for block in whole if block <= middle], default=min(whole))
        return tuple(sorted({min(middle, adapter.attention_block), adapter.attention_block}))

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        cell_P = image.cells(token_P)
        middle_P, last_P = (
            image.attention[block].received(from_all=True).mean(0)[cell_P]
            for block in (min(image.attention), max(image.attention))
        )
        _, columns = image.shown(token_P)
        return Kept(token_P[hierarchical(middle_P, last_P, columns, count, self.share)])
