"""One prefill of rows that are pruned inside the decoder by different methods, each by its own plan.

A plan sees its rows as a batch of their own, which ends where theirs ends and begins where the longest of them does.

B rows of the batch, M of them under one plan, S tokens of a row with padding, N visual tokens of a row, D width of the
decoder, d width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.stages import PromptLengths, Rope, StagePlan, StagePrefill, expand_rows
from clasp_calib.runtime.stats import PruningStats, StageStats


@dataclass(frozen=True)
class MixedPlan:
    """A `clasp_calib.runtime.stages.StagePlan` of several."""

    plans: tuple[StagePlan | None, ...]
    """``None`` leaves rows as they are."""
    owners: tuple[int, ...]
    """Of every row of a batch, which of the plans prunes it."""
    layers: int
    """Decoder layers."""
    prompt_lengths: PromptLengths = None
    entry: Entry | None = None
    """What has shortened the rows before, if anything has."""
    fan: None = None

    @property
    def stages(self) -> dict[int, int]:
        """Every start of any plan."""
        starts = {start for plan in self.plans if plan is not None for start in plan.stages}
        return {start: number for number, start in enumerate(sorted(starts))}

    @property
    def renumbers(self) -> tuple[bool, ...]:
        """See `clasp_calib.runtime.stages.StagePlan`."""
        by_plan = [plan is not None and all(plan.renumbers) for plan in self.plans]
        return tuple(by_plan[owner] for owner in self.owners)

    def for_prompts(self, lengths: PromptLengths) -> "MixedPlan":
        """See `clasp_calib.runtime.stages.StagePlan`."""
        return replace(self, prompt_lengths=lengths)

    def begin(self, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int) -> "MixedPrefill":
        """See `clasp_calib.runtime.stages.StagePlan`."""
        return MixedPrefill(self, embeddings_BSD, visual_BS, valid_BS, cached)


class _Part(NamedTuple):
    """The rows [M] of one plan."""

    rows: list[int]
    row_M: Tensor
    plan: StagePlan
    prefill: StagePrefill

    @property
    def width(self) -> int:
        return self.prefill.valid_BS.shape[1]


class MixedPrefill(StagePrefill):
    """The tokens of one forward that brings pictures; a `clasp_calib.runtime.stages.StagePrefill`.

    Raises:
        ModelError: a row has padding elsewhere than on its left.
    """

    def __init__(
        self, plan: MixedPlan, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int
    ) -> None:
        super().__init__(visual_BS, valid_BS, plan.layers)
        if bool((self.valid_BS[:, :-1] & ~self.valid_BS[:, 1:]).any()):
            raise ModelError(
                "attention_mask leaves out tokens in the midst of a row; rows with different selectors must be padded "
                "on the left, and nowhere else"
            )
        self._starts, device = list(plan.stages), visual_BS.device
        self._left = list(self.offered)
        columns = torch.arange(max(self.offered), device=device) - max(self.offered)
        self._patch_BN = (columns + torch.tensor(self.offered, device=device)[:, None]).clamp(min=-1)
        """Index among the visual tokens of its row of every token that is left, at the right end; -1 elsewhere."""
        rows = len(visual_BS)
        owner_B = expand_rows(torch.tensor(plan.owners), rows, "classes")
        shorter = 0 if plan.entry is None else plan.entry.shorter
        length_B = None
        if plan.prompt_lengths is not None:
            given = torch.as_tensor(plan.prompt_lengths, device="cpu").reshape(-1) - shorter
            length_B = expand_rows(given, rows, "prompt_lengths")
        self._parts: list[_Part] = []
        for number, of in enumerate(plan.plans):
            mine = (owner_B == number).nonzero().flatten().tolist()
            if of is None or not any(self.offered[row] for row in mine):
                continue
            before = visual_BS.shape[1] - max(self.lengths[row] for row in mine)
            row_M = torch.tensor(mine, device=device)
            lengths = None if length_B is None else (length_B[mine] - before).tolist()
            prefill = of.for_prompts(lengths).begin(
                embeddings_BSD[row_M, before:],
                visual_BS[row_M, before:],
                None if valid_BS is None else valid_BS[row_M, before:],
                cached,
            )
            self._parts.append(_Part(mine, row_M, of, prefill))

    def score(self, query: Tensor, key: Tensor, scaling: float, key_valid: Tensor | None) -> None:
        """See `clasp_calib.runtime.stages.StagePrefill`."""
        for part in self._at(self._starts[len(self.stages)]):
            cached, spare = key.shape[2] - query.shape[2], query.shape[2] - part.width
            valid_MT = None if key_valid is None else _without(key_valid[part.row_M], cached, spare, dim=1)
            part.prefill.score(
                query[part.row_M, :, spare:], _without(key[part.row_M], cached, spare, dim=2), scaling, valid_MT
            )

    def prune(self, start: int, number: int, hidden_BSD: Tensor, rope: Rope) -> tuple[Tensor, Rope]:
        """See `clasp_calib.runtime.stages.StagePrefill`."""
        cos_BSd, sin_BSd = (of.expand(len(hidden_BSD), -1, -1) for of in rope)
        arrived_BN, parts, pruned = self._patch_BN, self._at(start), []
        for part in parts:
            prefill, own = part.prefill, part.plan.stages[start]
            hidden_MSD, cos_MSd, sin_MSd = (of[part.row_M, -part.width :] for of in (hidden_BSD, cos_BSd, sin_BSd))
            hidden_MSD, (cos_MSd, sin_MSd) = prefill.prune(start, own, hidden_MSD, (cos_MSd, sin_MSd))
            pruned.append((hidden_MSD, cos_MSd, sin_MSd, prefill.valid_BS, prefill.visual_BS))
            for row, length, left in zip(part.rows, prefill.lengths, prefill.stages[-1][0], strict=True):
                self.lengths[row], self._left[row] = length, left
        owners = [part.row_M for part in parts]
        old = (hidden_BSD, cos_BSd, sin_BSd, self.valid_BS, self.visual_BS)
        hidden_BSD, cos_BSd, sin_BSd, self.valid_BS, self.visual_BS = (
            replaced_rows(values, max(self.lengths), owners, [new[place] for new in pruned])
            for place, values in enumerate(old)
        )
        self._note(start, owners, [part.prefill.stages[-1][1] for part in parts], arrived_BN)
        return hidden_BSD, (cos_BSd, sin_BSd)

    def visual_indices(self, first_M: Tensor) -> Tensor:
        """See `clasp_calib.runtime.stages.StagePrefill`."""
        index_BN: Tensor = self._patch_BN + first_M[:, None]
        return index_BN[self._patch_BN >= 0]

    def stats(self) -> PruningStats:
        """What has been kept, once the forward is over; raises what the prefills of the plans do."""
        for part in self._parts:
            self.watch.include(part.prefill.stats().watch)
        return super().stats()

    def _at(self, start: int) -> list[_Part]:
        return [part for part in self._parts if start in part.plan.stages]

    def _note(self, start: int, owners: list[Tensor], stages: list[StageStats], arrived_BN: Tensor) -> None:
        """Rows that the stage is not for keep what arrived, all of it as pivots."""
        width, arrived = max(self._left), arrived_BN.shape[1]
        self._patch_BN = replaced_rows(arrived_BN, width, owners, [of.patches_BK for of in stages], fill=-1)
        pivots_BK = replaced_rows(arrived_BN >= 0, width, owners, [of.pivots_BK for of in stages])
        nothing_BN = torch.zeros_like(arrived_BN, dtype=torch.float)
        scores_BN = replaced_rows(nothing_BN, arrived, owners, [of.scores_BN for of in stages])
        stage = StageStats(start, self._patch_BN, pivots_BK, arrived_BN, scores_BN)
        self.stages.append((list(self._left), stage))


def _without(values: Tensor, first: int, count: int, dim: int) -> Tensor:
    """Values without ``count`` of them from ``first`` on."""
    head, tail = values.narrow(dim, 0, first), values.narrow(dim, first + count, values.shape[dim] - first - count)
    return torch.cat([head, tail], dim)


def replaced_rows(
    values_BS: Tensor, width: int, owners: Sequence[Tensor], parts: Sequence[Tensor], fill: int = 0
) -> Tensor:
    """The right end of values, rows of some in the place of those that they are for; each [B, S] or [B, S, D]."""
    new_BS = values_BS[:, values_BS.shape[1] - width :].clone()
    for row_M, part_MS in zip(owners, parts, strict=True):
        left = (width - part_MS.shape[1], 0)
        pad = left if part_MS.ndim == 2 else (0, 0, *left)
        new_BS[row_M] = functional.pad(part_MS, pad, value=fill)
    return new_BS
