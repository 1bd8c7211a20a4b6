"""VScan: what the tower looks at, overall and in every window, the rest merged in; later what the text looks at.

Zhang et al., VScan: Rethinking Visual Token Reduction for Efficient Large Vision-Language Models, arXiv 2505.22654;
released in https://github.com/Tencent/SelfEvolvingAgent (``VScan/llava/model/llava_arch.py``), and read in a repository
that builds on it, https://github.com/ocy1/PIO-FVLM (commit 0183287, the same path and ``qwen/model``).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row, RowPlan
from clasp_calib.baselines.method import Reader
from clasp_calib.baselines.pyramiddrop import about_to_be_looked_at
from clasp_calib.baselines.staged import count_of, in_depth
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.budgeting import picture_tokens
from clasp_calib.runtime.checks import check_decoder, positions_on
from clasp_calib.runtime.encoding import Encoded, Kept, chosen_tokens
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.schedule import Budget
from clasp_calib.runtime.stages import PromptLengths


def scanned(local_P: Tensor, whole_P: Tensor, columns: int, count: int, window: int) -> Tensor:
    """Half of the patches window by window, as many of each, and the others of the whole picture; long, rising.

    In a window the largest of ``local_P`` are taken, and then of what is left the largest of ``whole_P`` (of equal ones
    the first). Our choice: what windows cannot share evenly goes to the whole picture, so that the count is met.

    Args:
        local_P: attention that patches receive in a shallow block, floating.
        whole_P: the same in the last.
        columns: patches of a line.
        count: how many are kept.
        window: lines and columns of a window; those at the far edges may be smaller.
    """
    place_P = torch.arange(len(local_P), device=local_P.device)
    window_P = place_P // columns // window * len(local_P) + place_P % columns // window
    windows = torch.unique(window_P).tolist()
    each = count // 2 // len(windows)
    chosen = [own[first_largest(local_P[own], each)] for own in (place_P[window_P == number] for number in windows)]
    local = torch.cat(chosen)
    others_P = whole_P.index_fill(0, local, -torch.inf)
    return torch.cat([local, first_largest(others_P, count - len(local))]).sort().values


def merged(features_PD: Tensor, chosen: Tensor) -> Tensor:
    """Means of the chosen tokens, each with those of the others that are most like it, [T, D].

    Args:
        features_PD: floating.
        chosen: indices [T], long; an other token goes to the first of those whose cosine is largest.
    """
    others_P = torch.ones(len(features_PD), dtype=torch.bool, device=chosen.device).index_fill(0, chosen, False)
    unit_PD = functional.normalize(features_PD, dim=-1)
    nearest = (unit_PD[others_P] @ unit_PD[chosen].mT).argmax(1)
    follows_TO = functional.one_hot(nearest, len(chosen)).mT.to(features_PD.dtype)
    return (features_PD[chosen] + follows_TO @ features_PD[others_P]) / (1 + follows_TO.sum(1, keepdim=True))


@dataclass(frozen=True)
class VScan(InputMethod):
    """Before the decoder by attention in the 6th block of CLIP's 24 and in the last; a share at decoder layer 16.

    Merged are projected tokens. Kept tokens stay in order and are renumbered, at both stages. The second stage scores
    as PyramidDrop does. Windows are of 6 x 6 patches. Where the tower has no class token, the mean attention of all
    patches stands in, that of the first block without windows for the 6th, and windows are of 4 x 4 tokens.

    Our choice: in a tower or decoder of other depth, blocks and layers are as deep in proportion; a picture's tile
    is merged with what is shown of it.
    """

    name: ClassVar[str] = "vscan"
    paper: ClassVar[str] = "arXiv 2505.22654"
    semantics: ClassVar[str] = "mean over layers"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        str(mean): {"keep": str(mean * 3 // 2)} for mean in (192, 128, 64)
    }

    keep: str = "96"
    """Tokens of an image that enter the decoder."""
    later: float = 1 / 3
    """Share of them that is left from ``start`` on."""
    start: int = 16
    """Decoder layer that the share enters, of 32."""

    def solved(self, adapter: Adapter, budget: Budget) -> Self:
        """As many at the entry that the mean is the budget; where all are too few for that, more are left later."""
        layers, (start,) = adapter.decoder_layers, in_depth((self.start,), adapter.decoder_layers)
        tokens = picture_tokens(adapter)
        work = layers * budget.of(tokens or 100) / (tokens or 100)
        share = min(work / (start + self.later * (layers - start)), 1.0)
        if tokens is not None:
            share = max(int(share * tokens + 0.5), 1) / tokens
        later = min(max((work / share - start) / (layers - start), 0.0), 1.0)
        return replace(self, keep=f"{100 * share:.10f}%", later=later)

    def tower_blocks(self, adapter: Adapter) -> tuple[int, ...]:
        """The shallow one, and the one before the projector."""
        shallow = max(int(6 / 24 * adapter.vision_layers + 0.5), 1) - 1
        shallow = min(getattr(adapter.config.vision_config, "fullatt_block_indexes", None) or [shallow])
        return tuple(sorted({min(shallow, adapter.attention_block), adapter.attention_block}))

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        cell_P, (_, columns) = image.cells(token_P), image.shown(token_P)
        blocks = [image.attention[block] for block in (min(image.attention), max(image.attention))]
        local_P, whole_P = (attention.received().mean(0)[cell_P] for attention in blocks)
        chosen = scanned(local_P, whole_P, columns, count, 6 if blocks[0].class_tokens else 4)
        return Kept(token_P[chosen], features_TD=merged(image.features_ND[token_P].float(), chosen))

    def left(self, stage: int, row: Row) -> KeptTokens:
        """What is left at the second stage."""
        best = first_largest(about_to_be_looked_at(row, self.name), count_of(self.later, row.came))
        return KeptTokens(best.sort().values)

    @contextmanager
    def attached(self, model: nn.Module, adapter: Adapter, prompt_lengths: PromptLengths) -> Iterator[Reader]:
        """See `Method`."""
        starts, positions = in_depth((self.start,), adapter.decoder_layers), positions_on(model, "compact")
        check_decoder(model, positions)
        entry, decoder = Entry(model, adapter, positions), adapter.language_model(model)
        plan = RowPlan(self.left, starts, positions, decoder, prompt_lengths, entry=entry)
        pruner = Pruner(model, adapter, plan, entry)
        in_place = positions == "keep"
        seen = chosen_tokens(model, adapter, self.tower_blocks(adapter), self.choose, in_place)
        with seen, entry.attached(), pruner.attached():
            yield lambda: pruner.stats
