"""Who enters the decoder: what an `clasp_calib.runtime.entry.Entry` asks, and the answer of marked features.

M rows as they come and B rows once candidates have fanned out, S tokens of a call, N visual tokens of a row, K of them
that enter, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.encoding import DROPPED
from clasp_calib.runtime.generation import modalities
from clasp_calib.runtime.scoring import gather_index, take
from clasp_calib.runtime.stats import StageStats, Stopwatch


@dataclass(frozen=True)
class Admitted:
    """Which visual tokens enter, bool [B, S], and of how many; row ``b`` goes on from row ``source_B[b]``."""

    keep_BS: Tensor
    source_B: Tensor
    offered: list[int]
    kept: list[int]
    stage: StageStats


class Gate(Protocol):
    """Decides in every forward that brings pictures which of their tokens enter."""

    def see(self, ids_MS: Tensor, inputs: Mapping[str, Any], generating: bool) -> None:
        """Look at the arguments of a forward that brings pictures, or of ``generate``; it may raise."""
        ...

    def admit(self, embeddings_MSD: Tensor, visual_MS: Tensor, watch: Stopwatch) -> Admitted:
        """Who enters.

        Args:
            embeddings_MSD: what would enter.
            visual_MS: bool, the visual tokens among it.
            watch: counts how long it takes.
        """
        ...


class Marked:
    """Lets in what is not `clasp_calib.runtime.encoding.DROPPED`: others have chosen as the pictures were encoded.

    Args:
        adapter: of the model.
        given: pictures are given as features that bear marks already.
    """

    def __init__(self, adapter: Adapter, given: bool = False) -> None:
        self._adapter, self._given = adapter, given

    def see(self, ids_MS: Tensor, inputs: Mapping[str, Any], generating: bool) -> None:
        """Refuse features, which bear no marks, and videos."""
        if inputs.get("mm_encoder_outputs") and not (generating or self._given):
            raise ModelError(
                "this method chooses tokens while the picture is encoded, and was given features instead; "
                "give pixel_values"
            )
        if "video" in modalities(self._adapter, dict(inputs)):
            raise ModelError("this method is defined for images, and was given a video; give images")

    def admit(self, embeddings_MSD: Tensor, visual_MS: Tensor, watch: Stopwatch) -> Admitted:
        """See `Gate`. There are no relevances, and all that enter count as pivots."""
        keep_MS = visual_MS & (embeddings_MSD[:, :, 0] != DROPPED)
        offered, kept = torch.stack([visual_MS.sum(1), keep_MS.sum(1)]).tolist()
        visual_MN = gather_index(visual_MS, max(offered))
        keep_MN = take(keep_MS, visual_MN)
        stage = entering(visual_MN, keep_MN, keep_MN, torch.zeros_like(visual_MN, dtype=torch.float), offered)
        return Admitted(keep_MS, torch.arange(len(keep_MS), device=keep_MS.device), offered, kept, stage)


def entering(
    visual_BN: Tensor, keep_BN: Tensor, pivots_BN: Tensor, relevance_BN: Tensor, offered: list[int]
) -> StageStats:
    """What is let in as a stage at layer 0.

    Args:
        visual_BN: positions of the visual tokens, at the right end.
        keep_BN: bool, which of them enter; none of those at the left that stand in for none.
        pivots_BN: bool, which of these for their relevance.
        relevance_BN: float32.
        offered: visual tokens of every row.
    """
    spare_B1 = visual_BN.shape[1] - torch.tensor(offered, device=visual_BN.device)[:, None]
    patch_BN = (torch.arange(visual_BN.shape[1], device=visual_BN.device) - spare_B1).clamp(min=-1)
    kept_BK = gather_index(keep_BN)
    is_kept_BK = take(keep_BN, kept_BK)
    patches_BK = take(patch_BN, kept_BK).masked_fill(~is_kept_BK, -1)
    return StageStats(0, patches_BK, take(pivots_BN, kept_BK) & is_kept_BK, patch_BN, relevance_BN)
