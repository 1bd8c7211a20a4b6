"""The input profile: one stage before the decoder, of the same selection, rated by the vision tower.

M rows as they come and B rows once candidates have fanned out, S tokens of a call, N visual tokens of a row, D width, K
kinds of relevance.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import KEEP, NONE
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.checks import position_axes
from clasp_calib.runtime.entry import Entry
from clasp_calib.runtime.finite import ADVICE, NonFiniteError, all_finite
from clasp_calib.runtime.gates import Admitted, entering
from clasp_calib.runtime.generation import modalities
from clasp_calib.runtime.scoring import gather_index, take
from clasp_calib.runtime.selection import gram_matrix
from clasp_calib.runtime.stages import FANNED, Plan, expand_rows
from clasp_calib.runtime.stats import Stopwatch
from clasp_calib.runtime.tower_relevance import TowerRelevance, noted_relevance


@contextmanager
def pruned_at_input(model: nn.Module, adapter: Adapter, plan: Plan) -> Iterator[Entry]:
    """Let only what the plan selects enter the decoder, within the ``with`` block.

    Args:
        model: what ``adapter`` is for.
        adapter: of the model.
        plan: its options settled, its schedule with one stage at layer 0.

    Raises:
        ModelError: the model is being pruned already.
    """
    positions = input_positions(model, adapter, plan)
    if not plan.stages:
        yield Entry(model, adapter, positions)
        return
    kinds = rating_kinds(plan)
    with noted_relevance(model, adapter, kinds) if kinds else nullcontext() as noted:
        entry = Entry(model, adapter, positions, InputGate(adapter, plan, noted))
        with entry.attached():
            yield entry


def input_positions(model: nn.Module, adapter: Adapter, plan: Plan) -> str:
    """The positions of a plan with settled options.

    Raises:
        ModelError: they have gaps, which the decoder's attention would take for several sequences.
    """
    positions = plan.options.positions
    assert positions is not None
    kernel = str(getattr(adapter.language_model(model).config, "_attn_implementation", ""))
    if positions == KEEP and not position_axes(model) and "flash" in kernel:
        raise ModelError(
            f"positions='keep' leaves gaps between position ids, which {kernel} takes for several sequences; "
            "give positions='compact'"
        )
    return positions


def rating_kinds(plan: Plan) -> list[str]:
    """The relevances that a plan's rows need, each once; none where coverage alone decides."""
    kinds = list(dict.fromkeys(_relevances(plan)))
    return [] if kinds == [NONE] else kinds


def _relevances(plan: Plan) -> tuple[str, ...]:
    assert plan.options.relevance is not None
    return plan.relevances or (plan.options.relevance,)


class InputGate:
    """A `clasp_calib.runtime.gates.Gate` that keeps as many tokens as the schedule says, pivots and medoids.

    Args:
        adapter: of the model.
        plan: what to keep.
        relevance: what rates the tokens, by the `rating_kinds` of the plan; ``None`` keeps all for coverage.
    """

    def __init__(self, adapter: Adapter, plan: Plan, relevance: TowerRelevance | None) -> None:
        self._adapter, self._plan, self._relevance = adapter, plan, relevance
        kinds = rating_kinds(plan)
        self._kind_R = torch.tensor([kinds.index(kind) if kinds else 0 for kind in _relevances(plan)])

    def see(self, ids_MS: Tensor, inputs: Mapping[str, Any], generating: bool) -> None:
        """Note where which pictures stand."""
        if not modalities(self._adapter, dict(inputs)):
            return
        if self._plan.fan is not None and generating:
            raise ModelError(FANNED)
        if self._relevance is not None:
            self._relevance.see(ids_MS, inputs)

    def admit(self, embeddings_MSD: Tensor, visual_MS: Tensor, watch: Stopwatch) -> Admitted:
        """See `clasp_calib.runtime.gates.Gate`; raises what `admit_rated` does."""
        with watch.part("scoring"):
            relevance_MSK = self.rated(visual_MS)
        return self.admit_rated(embeddings_MSD, visual_MS, relevance_MSK, watch)

    def rated(self, visual_MS: Tensor) -> Tensor:
        """Relevance of every visual token by every kind, float32 [M, S, K]; the same of all where nothing rates them.

        Raises:
            ModelError: the relevance is not known.
        """
        if self._relevance is None:
            return visual_MS.float()[:, :, None]
        return self._relevance.placed(visual_MS)

    def admit_rated(
        self, embeddings_MSD: Tensor, visual_MS: Tensor, relevance_MSK: Tensor, watch: Stopwatch
    ) -> Admitted:
        """Who enters of rows, or of some of them, whose tokens are `rated`.

        Raises:
            ModelError: the selector kept another number than it was told.
            NonFiniteError: relevance or features are not finite.
        """
        plan, device = self._plan, visual_MS.device
        offered: list[int] = visual_MS.sum(1).tolist()
        visual_MN = gather_index(visual_MS, max(offered))
        is_patch_MN = take(visual_MS, visual_MN)
        features_MND = take(embeddings_MSD, visual_MN)
        relevance_MNK = take(relevance_MSK, visual_MN)
        with watch.part("cosines"):
            gram_MNN = gram_matrix(features_MND) if plan.selector.needs_gram or self._relevance is None else None
        source = list(range(len(offered))) if plan.fan is None else list(plan.fan)
        if max(source) >= len(offered):
            raise ModelError(f"fan continues row {max(source)} of a batch of {len(offered)} rows")
        source_B = torch.tensor(source, device=device)
        offered = [offered[row] for row in source]
        kept = [plan.schedule.counts_for(tokens)[0] for tokens in offered]
        kind_B = expand_rows(self._kind_R, len(source), "relevances").to(device)
        is_patch_BN, relevance_BN = is_patch_MN[source_B], relevance_MNK[source_B, :, kind_B]
        rho_B = expand_rows(plan.rho, len(source), "rho")
        rho_B = torch.zeros_like(rho_B) if self._relevance is None else rho_B
        with watch.part("selection"):
            gram_BNN = None if gram_MNN is None else gram_MNN[source_B]
            selection = plan.selector(relevance_BN, gram_BNN, torch.tensor(kept), rho_B, is_patch_BN)
            keep_BN = selection.keep_BN & is_patch_BN
        self._check(relevance_MNK, features_MND.masked_fill(~is_patch_MN[:, :, None], 0), keep_BN, kept)
        visual_BN = visual_MN[source_B]
        keep_BS = torch.zeros_like(visual_MS[source_B]).scatter(1, visual_BN, keep_BN)
        stage = entering(visual_BN, keep_BN, selection.pivots_BN, relevance_BN, offered)
        return Admitted(keep_BS, source_B, offered, kept, stage)

    def _check(self, relevance_MNK: Tensor, features_MND: Tensor, keep_BN: Tensor, kept: list[int]) -> None:
        """Refuse numbers that are not finite, and selectors that miscount; one wait for a GPU in all."""
        finite = all_finite(relevance_MNK) & all_finite(features_MND)
        whole, *counts = torch.cat([finite.reshape(1).long(), keep_BN.sum(1)]).tolist()
        if not whole:
            raise NonFiniteError(f"the features of a picture, or the tower's attention, are not finite; {ADVICE}")
        if counts != kept:
            raise ModelError(
                f"{type(self._plan.selector).__name__} kept {counts} tokens of the rows; "
                f"a selector must keep as many as it is told, here {kept}"
            )
