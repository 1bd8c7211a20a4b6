"""Stages that choose row by row and may look at anything there is: for methods that need more than rated tokens.

`clasp_calib.runtime.stages` is faster and knows only scores and cosines. Here a method sees the states, the queries
and keys of the layer before, and the layer to come; it may keep any number of tokens, append new ones, and have keys
dropped from the cache when the prefill is over.

B rows, S tokens of a row, T keys, N visual tokens of a row that are left, K of them kept, R chosen queries, W text
tokens, D width of the decoder, H query heads, G key heads, d width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clasp_calib.common.pruning_options import COMPACT
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.scoring import choose_raters, gather_index, take
from clasp_calib.runtime.stages import PromptLengths, Rope, StagePrefill, prompt_of
from clasp_calib.runtime.stats import StageStats


@dataclass(frozen=True)
class Row:
    """One row without padding as it comes to a stage."""

    hidden_SD: Tensor
    """What enters the stage."""
    rope: Rope
    """Cosines and sines of its positions, [S, d]."""
    visual_N: Tensor
    """Positions of the visual tokens, rising."""
    text_W: Tensor
    """Positions of the prompt's text after the last visual token."""
    raters_R: Tensor
    """Positions of the raters that `clasp_calib.runtime.scoring.choose_raters` chose as SparseVLM does."""
    origin_N: Tensor
    """Index of every visual token among those that the row came with."""
    came: int
    """Visual tokens that the row came with."""
    batch: tuple[int, ...]
    """The same of every row of the batch."""
    query_HSd: Tensor
    """Queries of the layer before, rotated."""
    key_GTd: Tensor
    """Its keys, rotated, those that were cached before the row first."""
    scaling: float
    number: int
    """Which row of the batch."""
    layers: int
    """Decoder layers."""
    layer: Any
    """The decoder layer that the stage enters."""
    norm: Any
    """The decoder's final norm."""

    @property
    def visual(self) -> Tensor:
        """States [N, D] of the visual tokens that enter the stage."""
        return self.hidden_SD[self.visual_N]

    def attention(self, positions_R: Tensor) -> Tensor:
        """Attention of some tokens in the layer before to the visual ones, float32 [H, R, N]."""
        return attention_to(self.query_HSd, self.key_GTd, positions_R, self.visual_N, self.scaling)

    def products(self, positions_R: Tensor) -> Tensor:
        """The logits of that attention, float32 [H, R, N]: -inf where a token comes later than the one that attends."""
        logits_HRT = logits_of(self.query_HSd, self.key_GTd, positions_R, self.scaling)
        return logits_HRT[:, :, self.visual_N + (self.key_GTd.shape[1] - len(self.hidden_SD))]


@dataclass(frozen=True)
class KeptTokens:
    """What a stage makes of a row's visual tokens.

    ``tokens_K`` are indices among the N, rising. After the last visual token come ``added_KD``, states of new tokens
    at the positions of the tokens ``centres_K`` (indices among the N that are not kept otherwise).
    """

    tokens_K: Tensor
    added_KD: Tensor | None = None
    centres_K: Tensor | None = None


Choose = Callable[[int, Row], KeptTokens]
"""Chooses at a stage, by its number, among the visual tokens of a row, of which there is at least one."""


@dataclass(frozen=True)
class RowPlan:
    """Stages that choose row by row, in the place of a `clasp_calib.runtime.stages.Plan`."""

    choose: Choose
    starts: tuple[int, ...]
    """Decoder layers that a shortened row enters, the first at least 1."""
    positions: str
    """See `clasp_calib.common.pruning_options.PruningOptions`."""
    decoder: Any
    prompt_lengths: PromptLengths = None
    thins_cache: bool = False
    """Whether, once the prefill is over, all stages' keys are cut down to the tokens that are left at its end."""
    entry: Entry | None = None
    """What has shortened the rows before, if anything has."""
    fan: None = None

    @property
    def stages(self) -> dict[int, int]:
        """Start -> number of the stage."""
        return {start: number for number, start in enumerate(self.starts)}

    @property
    def renumbers(self) -> tuple[bool, ...]:
        """See `clasp_calib.runtime.stages.StagePlan`."""
        return (self.positions == COMPACT,)

    def for_prompts(self, lengths: PromptLengths) -> "RowPlan":
        """See `clasp_calib.runtime.stages.StagePlan`."""
        return replace(self, prompt_lengths=lengths)

    def begin(self, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int) -> "RowPrefill":
        """See `clasp_calib.runtime.stages.StagePlan`."""
        return RowPrefill(self, embeddings_BSD, visual_BS, valid_BS, cached)


class _State(NamedTuple):
    """One row, unpadded, all [S]: which tokens of the row are left, which of them are text and which rate, and of the
    visual ones the index among those that the row came with, -1 elsewhere.
    """

    token_S: Tensor
    text_S: Tensor
    rater_S: Tensor
    origin_S: Tensor

    @property
    def visual(self) -> Tensor:
        return self.origin_S >= 0


class RowPrefill(StagePrefill):
    """The tokens of one forward that brings pictures; a `clasp_calib.runtime.stages.StagePrefill`."""

    def __init__(
        self, plan: RowPlan, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int
    ) -> None:
        super().__init__(visual_BS, valid_BS, len(plan.decoder.layers))
        self.plan, self.cached = plan, cached
        lengths = plan.prompt_lengths
        if lengths is not None and plan.entry is not None:
            lengths = (torch.as_tensor(lengths).reshape(-1) - plan.entry.shorter).tolist()
        prompt_BS = prompt_of(self.valid_BS, lengths, cached)
        text_BS, rater_BS = (
            choose_raters(embeddings_BSD, self.visual_BS, prompt_BS, mode) for mode in ("all", "sparsevlm")
        )
        self.rows: list[_State] = []
        for row, valid_S in enumerate(self.valid_BS):
            here = valid_S.nonzero().flatten()
            visual_S = self.visual_BS[row, here]
            origin_S = torch.where(visual_S, visual_S.cumsum(0) - 1, -1)
            self.rows.append(_State(here - here[0], text_BS[row, here], rater_BS[row, here], origin_S))
        self._seen: tuple[Tensor, Tensor, float, Tensor | None] | None = None
        self._tokens: dict[int, list[Tensor]] = {}

    def score(self, query: Tensor, key: Tensor, scaling: float, key_valid: Tensor | None) -> None:
        """Note the queries [B, H, S, d] and keys [B, G, T, d] of the layer before a stage."""
        self._seen = (query, key, scaling, key_valid)

    def prune(self, start: int, number: int, hidden_BSD: Tensor, rope: Rope) -> tuple[Tensor, Rope]:
        """See `clasp_calib.runtime.stages.StagePrefill`."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        arrived = [state.origin_S[state.visual] for state in self.rows]
        with self.watch.part("selection"):
            for index, state in enumerate(self.rows):
                size = len(state.token_S)
                hidden_SD = hidden_BSD[index, -size:]
                cos_Sd, sin_Sd = (part.expand(len(hidden_BSD), -1, -1)[index, -size:] for part in rope)
                if bool(state.visual.any()):
                    row = self._row(index, state, start, hidden_SD, (cos_Sd, sin_Sd))
                    order_S, hidden_SD = _carried_out(self.plan.choose(number, row), row)
                    self.rows[index] = _State(*(part_S[order_S] for part_S in state))
                    cos_Sd, sin_Sd = cos_Sd[order_S], sin_Sd[order_S]
                parts.append((hidden_SD, cos_Sd, sin_Sd))
        self._seen = None
        self.valid_BS = _left_padded([torch.ones_like(state.visual) for state in self.rows])
        self.visual_BS = _left_padded([state.visual for state in self.rows])
        self._tokens[start] = [state.token_S for state in self.rows]
        self.lengths = [len(state.token_S) for state in self.rows]
        self._note(start, arrived)
        hidden_BSD, cos_BSd, sin_BSd = (_left_padded(list(of)) for of in zip(*parts, strict=True))
        return hidden_BSD, (cos_BSd, sin_BSd)

    def visual_indices(self, first_M: Tensor) -> Tensor:
        """See `clasp_calib.runtime.stages.StagePrefill`."""
        return torch.cat([s.origin_S[s.visual] + first for s, first in zip(self.rows, first_M, strict=True)])

    def finish(self, cache: Any, key_valid_by_stage: dict[int, Tensor | None]) -> None:
        """Drop the keys of tokens that are gone at the prefill's end, where the method wants that.

        Args:
            cache: of the forward, which began with it.
            key_valid_by_stage: which keys are valid, by the start of a stage; changed with the cache.
        """
        if not self.plan.thins_cache or cache is None:
            return
        starts = list(self.plan.stages)
        for start, following in pairwise(starts):
            keep = [torch.isin(had, left.token_S) for had, left in zip(self._tokens[start], self.rows, strict=True)]
            keep_BS = _left_padded(keep)
            keep_BT = torch.cat([keep_BS.new_ones(len(keep), self.cached), keep_BS], dim=1)
            index_BT = gather_index(keep_BT)
            for layer in cache.layers[start:following]:
                for name in ("keys", "values"):
                    held = getattr(layer, name)
                    index = index_BT[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[3])
                    setattr(layer, name, held.gather(2, index))
            valid_BT = key_valid_by_stage[start]
            kept_BT = keep_BT if valid_BT is None else keep_BT & valid_BT
            key_valid_by_stage[start] = take(kept_BT, index_BT)

    def _row(self, number: int, state: _State, start: int, hidden_SD: Tensor, rope: Rope) -> Row:
        assert self._seen is not None
        query, key, scaling, key_valid = self._seen
        key_GTd = key[number] if key_valid is None else key[number][:, key_valid[number]]
        return Row(
            hidden_SD=hidden_SD,
            rope=rope,
            visual_N=state.visual.nonzero().flatten(),
            text_W=state.text_S.nonzero().flatten(),
            raters_R=state.rater_S.nonzero().flatten(),
            origin_N=state.origin_S[state.visual],
            came=self.offered[number],
            batch=tuple(self.offered),
            query_HSd=query[number, :, -len(hidden_SD) :],
            key_GTd=key_GTd,
            scaling=scaling,
            number=number,
            layers=len(self.plan.decoder.layers),
            layer=self.plan.decoder.layers[start],
            norm=self.plan.decoder.norm,
        )

    def _note(self, start: int, arrived: list[Tensor]) -> None:
        kept = [state.origin_S[state.visual] for state in self.rows]
        patches_BK, arrived_BN = (_left_padded(of, fill=-1) for of in (kept, arrived))
        nothing_BN = torch.zeros_like(arrived_BN, dtype=torch.float)
        stage = StageStats(start, patches_BK, patches_BK >= 0, arrived_BN, nothing_BN)
        self.stages.append(([len(of) for of in kept], stage))


def _carried_out(kept: KeptTokens, row: Row) -> tuple[Tensor, Tensor]:
    """Positions [S'] in the row of what goes on, and its states; an added token stands at its centre's position."""
    stay_S = torch.ones(len(row.hidden_SD), dtype=torch.bool, device=row.hidden_SD.device)
    stay_S[row.visual_N] = False
    stay_S[row.visual_N[kept.tokens_K]] = True
    order = stay_S.nonzero().flatten()
    if kept.added_KD is None or kept.centres_K is None:
        return order, row.hidden_SD[order]
    head = int((order <= row.visual_N[-1]).sum())
    order_S = torch.cat([order[:head], row.visual_N[kept.centres_K], order[head:]])
    hidden_SD = torch.cat([row.hidden_SD[order[:head]], kept.added_KD, row.hidden_SD[order[head:]]])
    return order_S, hidden_SD


def attention_to(query_HSd: Tensor, key_GTd: Tensor, positions_R: Tensor, targets_N: Tensor, scaling: float) -> Tensor:
    """Causal attention of some tokens of a row to some others, float32 [H, R, N].

    Args:
        query_HSd: queries of the row, rotated.
        key_GTd: keys, rotated, those of the row last; H is a multiple of G.
        positions_R: tokens that attend, as positions in the row.
        targets_N: tokens that are attended to, likewise.
        scaling: factor of the logits.
    """
    attention_HRT = logits_of(query_HSd, key_GTd, positions_R, scaling).softmax(-1)
    return attention_HRT[:, :, targets_N + (key_GTd.shape[1] - query_HSd.shape[1])]


def logits_of(query_HSd: Tensor, key_GTd: Tensor, positions_R: Tensor, scaling: float) -> Tensor:
    """Causal scaled products of some tokens of a row with all keys, float32 [H, R, T]; -inf for keys that come later.

    Args:
        query_HSd: see `attention_to`.
        key_GTd: see `attention_to`.
        positions_R: see `attention_to`.
        scaling: see `attention_to`.
    """
    (heads, size, width), (groups, keys) = query_HSd.shape, key_GTd.shape[:2]
    query_GRd = query_HSd[:, positions_R].reshape(groups, -1, width)
    logits_HRT = (query_GRd.float() @ key_GTd.float().mT * scaling).view(heads, len(positions_R), keys)
    later_RT = torch.arange(keys, device=key_GTd.device) > positions_R[:, None] + (keys - size)
    return logits_HRT.masked_fill(later_RT, -torch.inf)


def _left_padded(rows: list[Tensor], fill: int = 0) -> Tensor:
    """Rows [S, ...] of different lengths as one tensor, flushed right."""
    width = max(map(len, rows))
    batch = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), fill)
    for index, row in enumerate(rows):
        batch[index, width - len(row) :] = row
    return batch
