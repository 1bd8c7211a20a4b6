"""SparseVLM v1.5: a few tokens of the text rate, and some of what is pruned comes back as means.

Zhang et al., SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference, arXiv 2410.04417.

P pruned tokens of one row, M of them that come back, K clusters, D width of the decoder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from clasp_calib.baselines.choosing import first_largest
from clasp_calib.baselines.knobs import require, require_starts
from clasp_calib.baselines.mechanisms.row_stages import KeptTokens, Row
from clasp_calib.baselines.staged import StagedMethod, everything, in_depth
from clasp_calib.runtime.schedule import STAGES, Budget, RelativeSchedule


def recycled(pruned: int, share: float = 0.3, members: int = 10) -> tuple[int, int]:
    """Of how many pruned tokens how many come back, and in how many clusters."""
    chosen = int(share * pruned) + 1
    return chosen, chosen // members + 1


def recycle(hidden_PD: Tensor, score_P: Tensor, share: float = 0.3, members: int = 10) -> tuple[Tensor, Tensor]:
    """Means of the clusters of the best pruned tokens.

    Args:
        hidden_PD: states of the pruned tokens, at least one.
        score_P: their ratings, by which the best ``share`` (and one) are chosen.
        share: of the pruned tokens.
        members: tokens for every cluster but the first.

    Returns:
        means [K, D] in the dtype of ``hidden_PD`` and the positions [K] of the clusters' centres among the pruned.
    """
    chosen, clusters = recycled(len(hidden_PD), share, members)
    best_M = first_largest(score_P, chosen)
    hidden_MD = hidden_PD[best_M].float()
    centres_K, cluster_M = density_peaks(hidden_MD, min(clusters, chosen))
    member_KM = cluster_M == torch.arange(len(centres_K), device=cluster_M.device)[:, None]
    means_KD = member_KM.float() @ hidden_MD / member_KM.sum(1, keepdim=True)
    return means_KD.to(hidden_PD.dtype), best_M[centres_K]


def density_peaks(points_MD: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """DPC-kNN: centres [K] are dense points far from denser ones; and the cluster [M] of every point.

    The number of neighbours that a density is measured on equals the number of clusters, the point itself among
    them, as in SparseVLM's code.
    """
    distance_MM = torch.cdist(points_MD, points_MD, compute_mode="donot_use_mm_for_euclid_dist")
    distance_MM = distance_MM / math.sqrt(points_MD.shape[1])
    nearest_MK = distance_MM.sort(dim=1).values[:, :clusters]
    density_M = (-nearest_MK.square().mean(1)).exp()
    # Our choice: of equally dense points the earlier is the denser. SparseVLM adds noise that is not seeded.
    rank_M = density_M.argsort(descending=True, stable=True).argsort()
    denser_MM = rank_M[None, :] < rank_M[:, None]
    to_denser_M = torch.where(denser_MM, distance_MM, distance_MM.max()).amin(1)
    centres_K = first_largest(to_denser_M * density_M, clusters)
    cluster_M = distance_MM[:, centres_K].argmin(1)
    cluster_M[centres_K] = torch.arange(clusters, device=centres_K.device)
    return centres_K, cluster_M


PUBLISHED_TOKENS = 576


@dataclass(frozen=True)
class SparseVLM(StagedMethod):
    """Prunes what leaves layers 2, 6 and 15, so that layers 3, 7 and 16 are the first to gain.

    Raters are chosen once from the decoder's input. What comes back stands behind the kept tokens; all are numbered
    anew (positions with several axes are kept, what comes back takes its cluster centre's). A budget is met by what
    enters the layers, with what comes back: the authors' own 192 leaves 192.03 tokens a layer, but 206.5 enter.
    """

    name: ClassVar[str] = "sparsevlm"
    paper: ClassVar[str] = "arXiv 2410.04417, code v1.5"
    semantics: ClassVar[str] = "mean over layers of what leaves them"
    positions: ClassVar[str] = "compact"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "192": {"counts": (300, 200, 110)},
        "128": {"counts": (303, 110, 36)},
        "96": {"counts": (238, 48, 26)},
        "64": {"counts": (66, 30, 17)},
    }
    returns: ClassVar[bool] = True
    """Whether pruned tokens come back."""

    starts: tuple[int, ...] = (3, 7, 16)
    counts: tuple[int, ...] = (300, 200, 110)
    """Tokens that each stage keeps of 576, others in proportion, before what comes back."""
    share: float | None = None
    """Instead: mean share of the row's tokens that the layers work on, with what comes back."""

    def __post_init__(self) -> None:
        require_starts(self, STAGES)
        counted = len(self.counts) == STAGES and min(self.counts) >= 1
        require(self, "counts", counted, f"{STAGES} numbers of tokens, each at least 1")
        share = self.share
        given = share is None or (isinstance(share, int | float) and 0 < share <= 1)
        require(self, "share", given, "a share above 0 and up to 1, or None")

    def at_share(self, layers: int, share: float) -> Self:
        """Stage counts as for our own schedule, at this method's starts (see `schedule`)."""
        # Counts mean nothing then, so that they are no others than those that mean nothing for all.
        solved = replace(self, share=share, counts=type(self).counts)
        solved.schedule(layers)
        return solved

    def schedule(self, layers: int) -> RelativeSchedule:
        """Totals of the stages, shaped by SparseVLM v2's lists.

        Raises:
            BudgetError: the share cannot be met at these starts.
        """
        assert self.share is not None
        return RelativeSchedule(Budget(percent=100 * self.share), layers, in_depth(self.starts, layers))

    def kept(self, stage: int, row: Row) -> int:
        """How many tokens a stage keeps, before what comes back."""
        arrived = len(row.visual_N)
        if self.share is None:
            return max(min(self.counts[stage] * row.came // PUBLISHED_TOKENS, arrived - 1), 1)
        total = self.schedule(row.layers).counts_for(row.came)[stage]
        if not self.returns or total >= arrived:
            return total
        # What comes back grows by one token where some 33 more are pruned: every total can be met but the very least.
        return max((k for k in range(1, arrived) if k + recycled(arrived - k)[1] <= total), default=1)

    def rate(self, row: Row) -> Tensor:
        """Rating [N] of the visual tokens."""
        return row.attention(row.raters_R).mean((0, 1))

    def choose(self, stage: int, row: Row) -> KeptTokens:
        """See `StagedMethod`."""
        keep = self.kept(stage, row)
        if keep >= len(row.visual_N):
            return everything(row)
        score_N = self.rate(row)
        tokens = first_largest(score_N, keep).sort().values
        if not self.returns:
            return KeptTokens(tokens)
        pruned_N = torch.ones_like(score_N, dtype=torch.bool)
        pruned_N[tokens] = False
        pruned_P = pruned_N.nonzero().flatten()
        added_KD, centres_K = recycle(row.visual[pruned_P], score_N[pruned_P])
        return KeptTokens(tokens, added_KD, pruned_P[centres_K])
