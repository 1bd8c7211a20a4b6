"""One prefill on its way through the pruning stages: which tokens of which row are still there.

M rows as they come and B rows once candidates have fanned out, S tokens of a row with padding, N visual
tokens of a row, K of them kept, D width of the decoder, d width of a head.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import COMPACT, PruningOptions
from clasp_calib.runtime.finite import ADVICE, NonFiniteError, all_finite
from clasp_calib.runtime.schedule import AnySchedule
from clasp_calib.runtime.scoring import choose_raters, gather_index, rater_attention, take
from clasp_calib.runtime.selection import Selector, gram_matrix
from clasp_calib.runtime.stats import PruningStats, StageStats, Stopwatch

Rope = tuple[Tensor, Tensor]
PromptLengths = int | Sequence[int] | None
"""Where answers follow the prompt, see `clasp_calib.runtime.pruner.prune`."""
FANNED = (
    "candidates fan out in one forward, which generate does not expect; call the model on the prompts first, and let "
    "generate go on from the cache, with a row a candidate"
)


class StagePlan(Protocol):
    """What `clasp_calib.runtime.hooks.Pruner` attaches to a decoder: `Plan`, or a peer's own."""

    @property
    def stages(self) -> dict[int, int]:
        """Decoder layer that a stage begins at -> number of the stage."""
        ...

    @property
    def fan(self) -> tuple[int, ...] | None:
        """See `clasp_calib.runtime.pruner.prune`; the first stage lets the rows fan out."""
        ...

    @property
    def renumbers(self) -> tuple[bool, ...]:
        """Whether tokens behind a stage, generated ones too, get position ids that count what is in its cache: one for
        all rows, or one a row."""
        ...

    def for_prompts(self, lengths: PromptLengths) -> "StagePlan":
        """The same where prompts have these lengths, see `clasp_calib.runtime.pruner.prune`."""
        ...

    def begin(self, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int) -> "StagePrefill":
        """The prefill of one forward.

        Args:
            embeddings_BSD: what enters the decoder.
            visual_BS: bool, which of it are visual tokens.
            valid_BS: bool, which of it is no padding; all if ``None``.
            cached: tokens that the cache holds already.
        """
        ...


class StagePrefill(ABC):
    """One forward that brings pictures: `score` is called in the layer before each stage, `prune` where it begins.

    ``valid_BS`` tells what is no padding, ``visual_BS`` what is a visual token, and ``source_B`` the row of the batch
    as it came that each row continues; they change with the stages, as do the ``lengths`` of the rows. ``offered`` are
    the visual tokens that they came with.

    Raises:
        ModelError: a row ends with padding.
    """

    def __init__(self, visual_BS: Tensor, valid_BS: Tensor | None, layers: int) -> None:
        self.valid_BS = torch.ones_like(visual_BS) if valid_BS is None else valid_BS
        self.visual_BS = visual_BS & self.valid_BS
        self.source_B = torch.arange(len(visual_BS), device=visual_BS.device)
        numbers = torch.stack([self.visual_BS.sum(1), self.valid_BS.sum(1), self.valid_BS[:, -1].long()])
        self.offered, self.lengths, filled = numbers.tolist()
        check_left_padded(filled)
        self.stages: list[tuple[list[int], StageStats]] = []
        self.watch = Stopwatch(visual_BS.device)
        self._layers = layers

    @property
    def padded(self) -> bool:
        """Whether some row is shorter than the sequence."""
        return bool(min(self.lengths) < self.valid_BS.shape[1])

    @abstractmethod
    def score(self, query: Tensor, key: Tensor, scaling: float, key_valid: Tensor | None) -> None:
        """Note what is needed of the attention in the layer before a stage.

        Args:
            query: [B, H, S, d], rotated.
            key: [B, G, T, d], rotated.
            scaling: factor of the logits.
            key_valid: which keys are no padding, bool [B, T]; all if ``None``.
        """

    @abstractmethod
    def prune(self, start: int, number: int, hidden_BSD: Tensor, rope: Rope) -> tuple[Tensor, Rope]:
        """Drop visual tokens from what enters layer ``start``.

        Args:
            start: the layer.
            number: which stage it begins, counted from 0.
            hidden_BSD: hidden states, [B, S, D].
            rope: cosines and sines of the positions, [B or 1, S, d].

        Returns:
            Hidden states and rope of the kept tokens, in order, padded on the left.
        """

    @abstractmethod
    def visual_indices(self, first_M: Tensor) -> Tensor:
        """Of the visual tokens that are left, row by row, the index among all, given the first of every row."""

    def finish(self, cache: Any, key_valid_by_stage: dict[int, Tensor | None]) -> None:  # noqa: B027
        """The forward is over: change the cache, and with it which of its keys are valid, if need be."""

    def stats(self) -> PruningStats:
        """What has been kept, once the forward is over.

        Raises:
            NonFiniteError: a stage was given relevances that are not finite.
        """
        # Here rather than stage by stage, so that a GPU is waited for only once.
        if self.stages:
            whole = torch.stack([all_finite(stage.scores_BN) for _, stage in self.stages]).tolist()
            if not all(whole):
                start = self.stages[whole.index(False)][1].start
                raise NonFiniteError(f"the attention before decoder layer {start} is not finite; {ADVICE}")
        counts = {stage.start: kept for kept, stage in self.stages}
        layers, current = [], self.offered
        for layer in range(self._layers):
            current = counts.get(layer, current)
            layers.append(current)
        return PruningStats(tuple(zip(*layers, strict=True)), tuple(stage for _, stage in self.stages), self.watch)


@dataclass(frozen=True)
class Plan:
    """What `clasp_calib.runtime.pruner.prune` was asked for; the meaning of the fields is explained there."""

    schedule: AnySchedule
    rho: Tensor
    selector: Selector
    options: PruningOptions
    prompt_lengths: PromptLengths = None
    fan: tuple[int, ...] | None = None
    relevances: tuple[str, ...] = ()
    """In the profile ``input``: what rates the tokens, one for all rows or one a row, instead of what the options say.
    """

    @property
    def stages(self) -> dict[int, int]:
        """Start -> number of the stages that change anything: drop tokens, or let candidates fan out."""
        starts = self.schedule.starts
        changing = {*self.schedule.changing, *(starts[:1] if self.fan else ())}
        return {start: number for number, start in enumerate(starts) if start in changing}

    @property
    def renumbers(self) -> tuple[bool, ...]:
        """See `StagePlan`."""
        return (self.options.positions == COMPACT,)

    def for_prompts(self, lengths: PromptLengths) -> "Plan":
        """See `StagePlan`."""
        return replace(self, prompt_lengths=lengths)

    def begin(self, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int) -> "Prefill":
        """See `StagePlan`."""
        return Prefill(self, embeddings_BSD, visual_BS, valid_BS, cached)


class Prefill(StagePrefill):
    """The tokens of one forward that brings pictures; `score` and `prune` are called in turn."""

    def __init__(
        self, plan: Plan, embeddings_BSD: Tensor, visual_BS: Tensor, valid_BS: Tensor | None, cached: int
    ) -> None:
        super().__init__(visual_BS, valid_BS, plan.schedule.layers)
        self.plan, self.visual = plan, self.offered
        prompt_BS = prompt_of(self.valid_BS, plan.prompt_lengths, cached)
        self.rater_BS = choose_raters(embeddings_BSD, self.visual_BS, prompt_BS, plan.options.raters)
        self._find_raters(int(self.rater_BS.sum(1).max()))

        self.columns = max(self.visual)
        visual_BN = gather_index(self.visual_BS, self.columns)
        self.is_patch_BN = take(self.visual_BS, visual_BN)
        self.column_BN = torch.arange(self.columns, device=visual_BS.device).expand(len(visual_BS), -1)
        self.counts = [plan.schedule.counts_for(tokens) for tokens in self.visual]
        self.relevance_BS: Tensor | None = None
        self._kept_B: list[Tensor] = []
        # Projected tokens do not change on the way: their cosines serve every stage and every rho.
        self.gram_MNN: Tensor | None = None
        if plan.selector.needs_gram and plan.options.features == "projected":
            with self.watch.part("cosines"):
                self.gram_MNN = gram_matrix(take(embeddings_BSD, visual_BN))

    def stats(self) -> PruningStats:
        """What has been kept, once the forward is over.

        Raises:
            ModelError: the selector did not keep as many tokens as it was told, or see `StagePrefill`.
        """
        stats = super().stats()
        for (expected, _), kept_B in zip(self.stages, self._kept_B, strict=True):
            if kept_B.tolist() != expected:
                raise ModelError(
                    f"{type(self.plan.selector).__name__} kept {kept_B.tolist()} tokens of the rows; "
                    f"a selector must keep as many as it is told, here {expected}"
                )
        return stats

    def score(self, query: Tensor, key: Tensor, scaling: float, key_valid: Tensor | None) -> None:
        """Note the attention of the raters in the layer before a stage; see `rater_attention`."""
        with self.watch.part("scoring"):
            self.relevance_BS = rater_attention(
                query, key, self.rater_BR, self.is_rater_BR, scaling=scaling, key_valid_BT=key_valid
            )

    def prune(self, start: int, number: int, hidden_BSD: Tensor, rope: Rope) -> tuple[Tensor, Rope]:
        """See `StagePrefill`."""
        cos_BSd, sin_BSd = (part.expand(len(hidden_BSD), -1, -1) for part in rope)
        if self.plan.fan is not None and not self.stages:
            self._fan_out(self.plan.fan)
            hidden_BSD, cos_BSd, sin_BSd = (t[self.source_B] for t in (hidden_BSD, cos_BSd, sin_BSd))
        assert self.relevance_BS is not None
        kept = [counts[number] for counts in self.counts]
        self.lengths = [a - b + c for a, b, c in zip(self.lengths, self.visual, kept, strict=True)]
        self.visual = kept

        position_BN = gather_index(self.visual_BS, self.column_BN.shape[1])
        relevance_BN = take(self.relevance_BS, position_BN)
        rho_B = expand_rows(self.plan.rho, len(hidden_BSD), "rho")
        gram_BNN = self._gram(hidden_BSD, position_BN)
        with self.watch.part("selection"):
            selection = self.plan.selector(relevance_BN, gram_BNN, torch.tensor(kept), rho_B, self.is_patch_BN)
            keep_BN = selection.keep_BN & self.is_patch_BN
        self._kept_B.append(keep_BN.sum(1))

        arrived_BN, kept_BK = self._patches(), gather_index(keep_BN, max(kept))
        self.column_BN, self.is_patch_BN = take(self.column_BN, kept_BK), take(keep_BN, kept_BK)
        pivots_BK = take(selection.pivots_BN, kept_BK) & self.is_patch_BN
        stage = StageStats(start, self._patches(), pivots_BK, arrived_BN, relevance_BN)
        self.stages.append((self.visual, stage))

        keep_BS = torch.zeros_like(self.visual_BS).scatter(1, position_BN, keep_BN)
        keep_BS |= self.valid_BS & ~self.visual_BS
        index_BS = gather_index(keep_BS, max(self.lengths))
        self.valid_BS = take(keep_BS, index_BS)
        self.visual_BS = take(self.visual_BS, index_BS) & self.valid_BS
        self.rater_BS = take(self.rater_BS, index_BS) & self.valid_BS
        self._find_raters(self.rater_BR.shape[1])
        return take(hidden_BSD, index_BS), (take(cos_BSd, index_BS), take(sin_BSd, index_BS))

    def _find_raters(self, count: int) -> None:
        self.rater_BR = gather_index(self.rater_BS, count)
        self.is_rater_BR = take(self.rater_BS, self.rater_BR)

    def _fan_out(self, fan: tuple[int, ...]) -> None:
        """Let several candidates go on from one row: row ``b`` from now on continues row ``fan[b]``."""
        if max(fan) >= len(self.offered):
            raise ModelError(f"fan continues row {max(fan)} of a batch of {len(self.offered)} rows")
        self.source_B = torch.tensor(fan, device=self.visual_BS.device)
        for name in ("valid_BS", "visual_BS", "rater_BS", "relevance_BS", "column_BN", "is_patch_BN"):
            setattr(self, name, getattr(self, name)[self.source_B])
        for name in ("offered", "visual", "lengths", "counts"):
            setattr(self, name, [getattr(self, name)[row] for row in fan])

    def visual_indices(self, first_M: Tensor) -> Tensor:
        """See `StagePrefill`."""
        return (self._patches() + first_M[self.source_B][:, None])[self.is_patch_BN]

    def _gram(self, hidden_BSD: Tensor, position_BN: Tensor) -> Tensor | None:
        """Cosines of the tokens that are left, [B, N, N]."""
        with self.watch.part("cosines"):
            if self.plan.selector.needs_gram and self.plan.options.features == "hidden":
                return gram_matrix(take(hidden_BSD, position_BN))
            if self.gram_MNN is None:
                return None
            rows_BN = self.column_BN + self.source_B[:, None] * self.columns
            gram = self.gram_MNN.view(-1, self.columns).index_select(0, rows_BN.flatten())
            gram_BNN = gram.view(*rows_BN.shape, self.columns)
            return gram_BNN.gather(2, self.column_BN[:, None, :].expand(-1, rows_BN.shape[1], -1))

    def _patches(self) -> Tensor:
        """Index among the visual tokens of its row of every token that is left, -1 where there is none."""
        spare_B = torch.tensor([self.columns - n for n in self.offered], device=self.column_BN.device)
        return (self.column_BN - spare_B[:, None]).masked_fill(~self.is_patch_BN, -1)


def expand_rows(values_R: Tensor, rows: int, name: str) -> Tensor:
    """One value for every row: given one for all, one each, or one each before ``generate`` made beams.

    Raises:
        ModelError: the batch is no multiple of the values.
    """
    if rows % len(values_R):
        raise ModelError(f"{name} has {len(values_R)} values for a batch of {rows} rows; give one, or one a row")
    return values_R.repeat_interleave(rows // len(values_R))


def check_left_padded(filled: Sequence[int | bool]) -> None:
    """Refuse rows whose last position is not ``filled``.

    Raises:
        ModelError: with the first of them.
    """
    if not all(filled):
        raise ModelError(
            f"row {list(map(bool, filled)).index(False)} ends with padding; pruned prompts must be padded on the left "
            "(tokenizer.padding_side = 'left')"
        )


def prompt_of(valid_BS: Tensor, prompt_lengths: PromptLengths, cached: int) -> Tensor:
    """Which tokens are of the prompt rather than of an answer that follows it, bool [B, S]."""
    if prompt_lengths is None:
        return valid_BS
    lengths_B = expand_rows(torch.as_tensor(prompt_lengths).reshape(-1), len(valid_BS), "prompt_lengths").to(
        valid_BS.device
    )
    position_S = torch.arange(cached, cached + valid_BS.shape[1], device=valid_BS.device)
    return valid_BS & (position_S < lengths_B[:, None])
