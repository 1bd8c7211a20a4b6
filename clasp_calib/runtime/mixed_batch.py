"""Batches in which each row is pruned by a method of its own: before the decoder, inside it, or both.

Pictures are encoded together, and the method of the row that owns a picture chooses of it. Rows of methods that act
elsewhere keep all their tokens meanwhile.

M rows of a batch, S tokens of a row, N visual tokens of a row, K of them kept, D width of the decoder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import InputError
from clasp_calib.common.pruning_options import COMPACT, INPUT, KEEP
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.checks import check_decoder, checked, positions_on
from clasp_calib.runtime.encoding import Choose, Encoded, Kept, chosen_tokens
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.gates import Admitted, Marked
from clasp_calib.runtime.hooks import Pruner
from clasp_calib.runtime.input_stage import InputGate, input_positions, rating_kinds
from clasp_calib.runtime.mixed_stages import MixedPlan, replaced_rows
from clasp_calib.runtime.owners import Owners, noted_owners
from clasp_calib.runtime.stages import Plan, PromptLengths, StagePlan, expand_rows
from clasp_calib.runtime.stats import PruningStats, StageStats, Stopwatch
from clasp_calib.runtime.tower_relevance import TowerRelevance, noted_relevance


@dataclass(frozen=True)
class RowActions:
    """What a method does to a row, wherever it stands in a batch.

    Attributes:
        choose: what of a picture goes on to the decoder; all if ``None``.
        blocks: of the tower, from 0, whose attention ``choose`` looks at.
        plan: what is dropped of the row later, or by a `Plan` in the profile ``input`` before the decoder.
    """

    choose: Choose | None = None
    blocks: tuple[int, ...] = ()
    plan: StagePlan | None = None

    @property
    def at_input(self) -> bool:
        """Whether the plan acts before the decoder."""
        return isinstance(self.plan, Plan) and self.plan.options.profile == INPUT


@contextmanager
def mixed(
    model: nn.Module,
    adapter: Adapter,
    actions: Sequence[RowActions],
    owners: Sequence[int],
    prompt_lengths: PromptLengths = None,
) -> Iterator[Callable[[], PruningStats | None]]:
    """Prune every row of a batch by its own method within the ``with`` block; yields what reads the statistics.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        actions: of the methods, at most one with a plan in the profile ``input``; those plans are for the method's rows
            alone.
        owners: of every row of a batch, which of the methods prunes it.
        prompt_lengths: see `clasp_calib.runtime.pruner.prune`; of all rows.

    Raises:
        InputError: the methods number positions differently before the decoder.
        ModelError: the model cannot be pruned so, or is being pruned already.
    """
    actions = [_checked(model, adapter, of) for of in actions]
    gated = next((number for number, of in enumerate(actions) if of.at_input), None)
    with ExitStack() as attached:
        entry = None
        if gated is not None or any(of.choose for of in actions):
            entry = attached.enter_context(_entered(model, adapter, actions, owners, gated))
        plans = tuple(None if of.at_input else of.plan for of in actions)
        plan = MixedPlan(plans, tuple(owners), adapter.decoder_layers, prompt_lengths, entry)
        pruner = Pruner(model, adapter, plan, entry)
        attached.enter_context(pruner.attached())
        if entry is None:
            yield lambda: pruner.stats
        elif not plan.stages:
            yield lambda: entry.stats
        else:
            yield lambda: _together(entry.stats, pruner.stats)


def _checked(model: nn.Module, adapter: Adapter, actions: RowActions) -> RowActions:
    if actions.choose is not None:
        check_decoder(model, positions_on(model, COMPACT))
    return replace(actions, plan=checked(model, adapter, actions.plan)) if isinstance(actions.plan, Plan) else actions


@contextmanager
def _entered(
    model: nn.Module, adapter: Adapter, actions: Sequence[RowActions], owners: Sequence[int], gated: int | None
) -> Iterator[Entry]:
    """Let only what is chosen before the decoder enter it, of rows for which that is done."""
    choosing = any(of.choose for of in actions)
    plan = None if gated is None else actions[gated].plan
    assert plan is None or isinstance(plan, Plan)
    positions = positions_on(model, COMPACT) if plan is None else input_positions(model, adapter, plan)
    if choosing and positions != (compact := positions_on(model, COMPACT)):
        raise InputError(
            f"rows of this batch choose tokens before the decoder with positions={compact!r}, and others with "
            f"positions={positions!r}; give the rows of each in a batch of their own"
        )
    kinds = [] if plan is None else rating_kinds(plan)
    with ExitStack() as attached:
        relevance: TowerRelevance | None = None
        if kinds and choosing:
            relevance = TowerRelevance(model, adapter, kinds)
        elif kinds:
            relevance = attached.enter_context(noted_relevance(model, adapter, kinds))
        gate = None if plan is None else InputGate(adapter, plan, relevance)
        entry = Entry(model, adapter, positions, _MixedGate(Marked(adapter), choosing, gate, owners, gated))
        if choosing:
            of_row = [actions[owner].choose for owner in owners]
            by_owner = attached.enter_context(noted_owners(model, adapter, len(owners), "classes"))
            choose = entry.timed(_by_owner(of_row, by_owner))
            blocks = {block for of in actions for block in of.blocks} | ({adapter.attention_block} if kinds else set())

            def note(output: Any, inputs: Mapping[str, Any], seen: Mapping[int, Any]) -> None:
                if relevance is not None:
                    relevance.encoded("image", output, inputs, seen[adapter.attention_block])

            attached.enter_context(
                chosen_tokens(model, adapter, sorted(blocks), choose, in_place=positions == KEEP, watch=note)
            )
        attached.enter_context(entry.attached())
        yield entry


def _by_owner(choose_M: Sequence[Choose | None], owners: Owners) -> Choose:
    def choose(image: Encoded) -> Kept:
        own = choose_M[owners.of_picture("image", image.number)]
        everything = torch.arange(len(image.features_ND), device=image.features_ND.device)
        return Kept(everything) if own is None else own(image)

    return choose


class _MixedGate:
    """A `clasp_calib.runtime.gates.Gate`: some rows are marked, some are chosen from here, and the others enter whole.

    Args:
        marked: lets in what is not marked.
        choosing: some rows are.
        gate: chooses from the rows that are its own.
        owners: of every row, the number of its method.
        gated: the number of the one that chooses here.
    """

    def __init__(
        self, marked: Marked, choosing: bool, gate: InputGate | None, owners: Sequence[int], gated: int | None
    ) -> None:
        self._marked, self._choosing, self._gate = marked, choosing, gate
        self._own_M = torch.tensor([owner == gated for owner in owners])

    def see(self, ids_MS: Tensor, inputs: Mapping[str, Any], generating: bool) -> None:
        """See `clasp_calib.runtime.gates.Gate`."""
        if self._choosing:
            self._marked.see(ids_MS, inputs, generating)
        if self._gate is not None:
            self._gate.see(ids_MS, inputs, generating)

    def admit(self, embeddings_MSD: Tensor, visual_MS: Tensor, watch: Stopwatch) -> Admitted:
        """See `clasp_calib.runtime.gates.Gate`."""
        everyone = self._marked.admit(embeddings_MSD, visual_MS, watch)
        own = expand_rows(self._own_M, len(visual_MS), "classes").nonzero().flatten().to(visual_MS.device)
        if self._gate is None or not bool(visual_MS[own].any()):
            return everyone
        with watch.part("scoring"):
            relevance_MSK = self._gate.rated(visual_MS)[own]
        admitted = self._gate.admit_rated(embeddings_MSD[own], visual_MS[own], relevance_MSK, watch)
        keep_MS, kept = everyone.keep_BS.clone(), list(everyone.kept)
        keep_MS[own] = admitted.keep_BS
        for row, count in zip(own.tolist(), admitted.kept, strict=True):
            kept[row] = count
        stage = _with_rows(everyone.stage, own, admitted.stage, max(kept))
        return replace(everyone, keep_BS=keep_MS, kept=kept, stage=stage)


def _with_rows(stage: StageStats, row_M: Tensor, other: StageStats, kept: int) -> StageStats:
    """A stage at which some rows went through another; ``kept`` is the most tokens that a row keeps."""
    arrived = stage.arrived_BN.shape[1]
    return StageStats(
        stage.start,
        replaced_rows(stage.patches_BK, kept, [row_M], [other.patches_BK], fill=-1),
        replaced_rows(stage.pivots_BK, kept, [row_M], [other.pivots_BK]),
        stage.arrived_BN,
        replaced_rows(stage.scores_BN, arrived, [row_M], [other.scores_BN]),
    )


def _together(entered: PruningStats | None, pruned: PruningStats | None) -> PruningStats | None:
    """What was kept before the decoder and in it, patches counted as the pictures had them."""
    if entered is None or pruned is None:
        return None
    (first,) = entered.stages
    spare_B1 = first.patches_BK.shape[1] - (first.patches_BK >= 0).sum(1, keepdim=True)

    def of_picture(patch_BN: Tensor) -> Tensor:
        place_BN = (patch_BN.clamp(min=0) + spare_B1).clamp(max=first.patches_BK.shape[1] - 1)
        return first.patches_BK.gather(1, place_BN).masked_fill(patch_BN < 0, -1)

    later = (
        replace(of, patches_BK=of_picture(of.patches_BK), arrived_BN=of_picture(of.arrived_BN)) for of in pruned.stages
    )
    watch = Stopwatch(first.patches_BK.device)
    watch.include(entered.watch)
    watch.include(pruned.watch)
    return PruningStats(pruned.tokens, (first, *later), watch)
