"""BTP, balanced token pruning: early stages keep what is diverse, late ones what is attended to, the last nothing.

Li et al., Balanced Token Pruning: Accelerating Vision Language Models Beyond Local Optimization, arXiv 2505.22038.

N visual tokens of one row, D width of the decoder.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.knobs import require, require_falling, require_shares
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row
from clasp_calib.baselines.staged import StagedMethod, count_of, in_depth, scaled_shares, spans_of

Ranking = Literal["products", "attention"]


@lru_cache(maxsize=64)
def spread(rows: int, columns: int, count: int) -> tuple[int, ...]:
    """``count`` cells of a grid, each the farthest from those before it by city-block distance, from the first on."""
    place_N = torch.arange(rows * columns)
    y_N, x_N = place_N // columns, place_N % columns
    chosen, away_N = [0], y_N + x_N
    while len(chosen) < min(count, rows * columns):
        away_N[chosen[-1]] = -1
        cell = int(away_N.argmax())
        chosen.append(cell)
        away_N = torch.minimum(away_N, (y_N - y_N[cell]).abs() + (x_N - x_N[cell]).abs())
    return tuple(chosen[:count])


def diverse(hidden_ND: Tensor, count: int, chosen_N: Tensor) -> Tensor:
    """``chosen_N`` (bool) and ``count`` more tokens, each the least like all those before it; bool [N].

    Without any before it the first is the token whose nearest neighbour is farthest.
    """
    unit_ND = functional.normalize(hidden_ND.float(), dim=1)
    # Our choice: near ties go by position, as in our own selection.
    cosine_NN = torch.round(unit_ND @ unit_ND.mT, decimals=5)
    kept_N = chosen_N.clone()
    count = min(count, int((~kept_N).sum()))
    if count and not kept_N.any():
        others_N = cosine_NN.clone().fill_diagonal_(-torch.inf).amax(0)
        kept_N[others_N.argmin()] = True
        count -= 1
    nearest_N = cosine_NN[kept_N].amax(0) if count else cosine_NN[0]
    for _ in range(count):
        token = nearest_N.masked_fill(kept_N, torch.inf).argmin()
        nearest_N = torch.maximum(nearest_N, cosine_NN[token])
        kept_N[token] = True
    return kept_N


def attended(ranked_N: Tensor, count: int, candidates: int, early: int) -> Tensor:
    """``count`` of the ``candidates`` most attended tokens, those before position ``early`` first.

    So the late positions, which attention favours, come after the early ones.
    """
    best = first_largest(ranked_N, candidates)
    ordered = torch.cat([best[best < early], best[best >= early]])
    return ordered[:count]


def balanced(
    hidden_ND: Tensor,
    ranked_N: Tensor,
    keep: int,
    *,
    diversity: float,
    attention: float,
    candidates: float,
    cells: tuple[int, ...] = (),
) -> Tensor:
    """What a stage keeps: attended tokens, diverse ones, given cells, and diverse ones to fill up.

    Args:
        hidden_ND: what enters the stage.
        ranked_N: how much the last text token looks at each, the larger the more.
        keep: how many.
        diversity: share of ``keep`` that is chosen as diverse.
        attention: share of ``keep`` that is chosen by attention.
        candidates: how many times as many are looked at to choose those by attention.
        cells: positions that are kept whatever they show.

    Returns:
        ``keep`` positions, long, rising.
    """
    count = int(keep * attention)
    by_attention = attended(ranked_N, count, int(min(count * candidates, len(hidden_ND))), keep)
    none_N = torch.zeros(len(hidden_ND), dtype=torch.bool, device=hidden_ND.device)
    by_diversity = diverse(hidden_ND, int(keep * diversity), none_N).nonzero().flatten()
    # Our choice: where the three overlap too little to fit, cells yield first and then diverse tokens. BTP's code
    # keeps more than it should then.
    wanted = torch.cat([by_attention, by_diversity, torch.tensor(cells, dtype=torch.long, device=none_N.device)])
    kept_N = none_N
    for token in wanted.tolist():
        if int(kept_N.sum()) < keep:
            kept_N[token] = True
    return diverse(hidden_ND, keep - int(kept_N.sum()), kept_N).nonzero().flatten()


@dataclass(frozen=True)
class Btp(StagedMethod):
    """Stages at layers 3, 6 and 14 (counted from 0), and no visual token from layer 22 on; position ids are kept.

    The first stage also keeps cells that are spread over the picture. Where tokens are no square grid (tiles, ragged
    pictures, several pictures in a prompt) they are spread along the sequence. A budget scales all three stages.
    """

    name: ClassVar[str] = "btp"
    paper: ClassVar[str] = "arXiv 2505.22038"
    semantics: ClassVar[str] = "mean over layers"

    starts: tuple[int, ...] = (3, 6, 14, 22)
    kept: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 12, 0.0)
    """Share of the row's visual tokens that is left at each stage."""
    diversity: tuple[float, ...] = (0.3, 0.1, 0.0)
    attention: tuple[float, ...] = (0.3, 0.9, 1.0)
    candidates: tuple[float, ...] = (3.7, 1.5, 1.2)
    """How many times as many are looked at to choose those by attention."""
    cells: float = 0.5
    """Share of what the first stage keeps that is spread over the picture."""
    ranking: Ranking = "products"
    """What ranks tokens by what the last text token looks at in the layer before, mean over heads: scaled products of
    queries and keys, as on the released path (FlashAttention gives no weights), or their softmax, as the paper says.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require_falling(self, "kept")
        require(self, "kept", self.kept[0] > 0, "a share above 0 at the first stage")
        keeping = sum(share > 0 for share in self.kept)
        for knob in ("diversity", "attention", "candidates"):
            many = len(getattr(self, knob)) == keeping
            require(self, knob, many, f"{keeping} numbers, one for each stage that keeps tokens")
        require_shares(self, "diversity", "attention", "cells")
        many = all(math.isfinite(times) and times >= 1 for times in self.candidates)
        require(self, "candidates", many, "finite numbers from 1 up")
        require(self, "ranking", self.ranking in (known := get_args(Ranking)), f"one of {', '.join(known)}")

    def at_share(self, layers: int, share: float) -> Self:
        """The published shares times a factor; those that would keep more than all keep all."""
        spans = spans_of(in_depth(self.starts, layers), layers)
        return replace(self, kept=scaled_shares(self.kept, spans, share, self.name))

    def choose(self, stage: int, row: Row) -> KeptTokens:
        """See `StagedMethod`."""
        keep = count_of(self.kept[stage], row.came)
        if keep == 0:
            return KeptTokens(row.visual_N[:0])
        last_R = row.text_W[-1:]
        looked_HRN = row.products(last_R) if self.ranking == "products" else row.attention(last_R)
        side = math.isqrt(row.came)
        grid = (side, side) if side**2 == row.came else (1, row.came)
        tokens = balanced(
            row.visual,
            looked_HRN.mean((0, 1)),
            keep,
            diversity=self.diversity[stage],
            attention=self.attention[stage],
            candidates=self.candidates[stage],
            cells=spread(*grid, int(self.cells * keep)) if stage == 0 else (),
        )
        return KeptTokens(tokens)
