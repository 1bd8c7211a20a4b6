"""Dual-stage token selection: pivots by relevance, then k-means medoids of the rest (eq. 11-18, 32-41).

Everything works on the Gram matrix of unit features, whatever their width: a centre is a sum of members, so
its cosine with token ``i`` is a sum of entries of row ``i``.

B rows (prompts, or candidates for one prompt), N visual tokens of a row, K clusters, D features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from clasp_calib.common.errors import ModelError
from clasp_calib.common.pruning_options import FARTHEST, REDUNDANCY, SEEDINGS
from clasp_calib.runtime.seeding import NO_DIRECTION, TIE, gram_rows, nearness, redundancy, seeds

# Below every cosine: marks what must not be chosen.
NEVER = -2.0


@dataclass(frozen=True)
class Selection:
    """Which tokens stay; those of ``keep_BN`` that are not in ``pivots_BN`` are medoids."""

    keep_BN: Tensor
    pivots_BN: Tensor


class Selector(Protocol):
    """Chooses what a stage keeps: the dual-stage selection of the paper, or a baseline in its place."""

    @property
    def needs_gram(self) -> bool:
        """Whether cosines between tokens are read; they are not computed otherwise."""
        ...

    def __call__(
        self, relevance_BN: Tensor, gram_BNN: Tensor | None, counts_B: Tensor, rho_B: Tensor, valid_BN: Tensor
    ) -> Selection:
        """Keep ``counts_B`` tokens of every row.

        Args:
            relevance_BN: float32, attention that the tokens receive from the instruction.
            gram_BNN: float32 cosines, ``None`` if not needed.
            counts_B: long, on the CPU; never more than a row has.
            rho_B: float64, on the CPU, share of the pivots.
            valid_BN: bool, which tokens a row has.
        """
        ...


@dataclass(frozen=True)
class DualStage:
    """The paper's selection, `split_budget` and `select`, as a `Selector`.

    ``seedings`` is what k-means starts from, one for all rows or one a row; see
    `clasp_calib.common.pruning_options.PruningOptions`. ``needs_gram`` may be false where rho is 1 in every row: there
    are no medoids then.

    Raises:
        ModelError: a seeding that there is not; when called, a batch that is no multiple of the seedings.
    """

    iterations: int = 5
    seedings: tuple[str, ...] = (REDUNDANCY,)
    needs_gram: bool = True

    def __post_init__(self) -> None:
        if not self.seedings or not {*self.seedings} <= {*SEEDINGS}:
            raise ModelError(f"seedings are {self.seedings!r}; expected one or more of {', '.join(SEEDINGS)}")

    def __call__(
        self, relevance_BN: Tensor, gram_BNN: Tensor | None, counts_B: Tensor, rho_B: Tensor, valid_BN: Tensor
    ) -> Selection:
        """See `Selector`."""
        rows, given = len(relevance_BN), len(self.seedings)
        if rows % given:
            raise ModelError(f"there are {given} seedings for a batch of {rows} rows; give one, or one a row")
        seeding = [name for name in self.seedings for _ in range(rows // given)]
        pivots_B, medoids_B = split_budget(counts_B, rho_B)
        return select(
            relevance_BN, gram_BNN, pivots_B, medoids_B, valid_BN, iterations=self.iterations, seeding=seeding
        )


def split_budget(counts_B: Tensor, rho_B: Tensor) -> tuple[Tensor, Tensor]:
    """Pivots and medoids of a stage that keeps ``counts_B`` tokens (eq. 11), both long [B].

    Our choice: halves go to the pivots; the epsilon because 0.7 * 45 falls under 31.5 in floats.
    """
    pivots_B = torch.floor(rho_B.double() * counts_B + 0.5 + 1e-9).long()
    return pivots_B, counts_B - pivots_B


def gram_matrix(features_BND: Tensor) -> Tensor:
    """Cosines [B, N, N] between tokens, in float32 whatever the model's dtype; a zero vector has cosine 0."""
    with _full_precision(features_BND.device.type):
        unit_BND = functional.normalize(features_BND.float(), dim=-1)
        return unit_BND @ unit_BND.mT


@torch.no_grad()
def select(
    relevance_BN: Tensor,
    gram_BNN: Tensor | None,
    pivots_B: Tensor,
    medoids_B: Tensor,
    valid_BN: Tensor | None = None,
    *,
    iterations: int = 5,
    seeding: Sequence[str] | None = None,
) -> Selection:
    """Keep exactly ``pivots_B + medoids_B`` tokens of every row, or all that it has if those are fewer.

    Args:
        relevance_BN: attention that each token receives from the instruction, floating (eq. 4).
        gram_BNN: cosines as `gram_matrix` gives them; ``None`` if no row wants medoids.
        pivots_B: most relevant tokens to keep, long; on the CPU it costs no synchronisation.
        medoids_B: cluster representatives to keep, long, likewise.
        valid_BN: bool, which tokens a row has; all if ``None``.
        iterations: rounds of k-means (Table 18: 5 is best overall).
        seeding: what k-means starts from in every row; in all from the least redundant tokens if ``None``. Our choice:
            a row without pivots is seeded farthest-first, for the paper says nothing of rho = 0.
    """
    device = relevance_BN.device
    clusters = min(int(medoids_B.max()), relevance_BN.shape[1])
    pivots, medoids = pivots_B.tolist(), medoids_B.tolist()
    valid_BN = torch.ones_like(relevance_BN, dtype=torch.bool) if valid_BN is None else valid_BN
    medoids_B = medoids_B.to(device)

    relevance_BN = relevance_BN.float().masked_fill(~valid_BN, -torch.inf)
    by_relevance_BN = relevance_BN.argsort(dim=1, descending=True, stable=True)
    pivots_BN = valid_BN & (_ranks(by_relevance_BN) < pivots_B.to(device)[:, None])
    if clusters == 0:
        return Selection(pivots_BN, pivots_BN)
    assert gram_BNN is not None, "medoids need the Gram matrix"

    pool_BN = valid_BN & ~pivots_BN & (medoids_B > 0)[:, None]
    nearness_BN = nearness(gram_BNN, by_relevance_BN, pivots_B)
    given = seeding or [REDUNDANCY] * len(pivots)
    seeding = [name if count else FARTHEST for name, count in zip(given, pivots, strict=True)]
    seeds_BK = seeds(gram_BNN, pool_BN, nearness_BN, medoids, seeding)
    live_BK = torch.arange(clusters, device=device) < medoids_B[:, None]
    medoids_BN = _medoids(k_means(gram_BNN, seeds_BK, live_BK, pool_BN, iterations), pool_BN)

    # Empty clusters yield to the least redundant tokens that are left, so that the count is met.
    left_BN = pool_BN & ~medoids_BN
    by_redundancy_BN = redundancy(nearness_BN).masked_fill(~left_BN, torch.inf).argsort(dim=1, stable=True)
    missing_B = medoids_B - medoids_BN.sum(1)
    filled_BN = left_BN & (_ranks(by_redundancy_BN) < missing_B[:, None])
    return Selection(pivots_BN | medoids_BN | filled_BN, pivots_BN)


def k_means(gram_BNN: Tensor, seeds_BK: Tensor, live_BK: Tensor, pool_BN: Tensor, iterations: int) -> Tensor:
    """Spherical k-means (eq. 14, 15): cosines [B, K, N] of all tokens with the centres after some rounds.

    Args:
        gram_BNN: cosines between tokens.
        seeds_BK: tokens that are the first centres, long.
        live_BK: bool, which clusters a row has; the others have no member.
        pool_BN: bool, the tokens to cluster.
        iterations: rounds of assigning to the nearest centre (ties: the lower) and moving the centres. An
            empty cluster, or one whose members cancel out, keeps its centre.
    """
    cosine_BKN = gram_rows(gram_BNN, seeds_BK).masked_fill(~live_BK[:, :, None], NEVER)
    for _ in range(iterations):
        means_BKN, squares_BK = _cluster_means(gram_BNN, _first_largest(cosine_BKN), pool_BN, seeds_BK.shape[1])
        moved_BK = ((squares_BK > NO_DIRECTION) & live_BK).float()
        scale_BK = moved_BK / squares_BK.clamp_min(NO_DIRECTION).sqrt()
        cosine_BKN = (cosine_BKN * (1 - moved_BK)[:, :, None]).addcmul_(means_BKN, scale_BK[:, :, None])
    return cosine_BKN


def _medoids(cosine_BKN: Tensor, pool_BN: Tensor) -> Tensor:
    """Of every cluster the member nearest its centre (eq. 16, 17), bool [B, N]; none of an empty one.

    Our choice: members are assigned once more, to the final centres.
    """
    label_BN = _first_largest(cosine_BKN)
    own_BN = cosine_BKN.gather(1, label_BN[:, None])[:, 0].masked_fill(~pool_BN, NEVER)
    best_BK = torch.full_like(cosine_BKN[:, :, 0], NEVER).scatter_reduce(1, label_BN, own_BN, "amax")
    near_BN = pool_BN & (own_BN >= best_BK.gather(1, label_BN) - TIE)
    beyond = pool_BN.shape[1]
    index_BN = torch.arange(beyond, device=label_BN.device).expand_as(label_BN)
    first_BK = torch.full_like(best_BK, beyond, dtype=torch.long)
    first_BK = first_BK.scatter_reduce(1, label_BN, index_BN.masked_fill(~near_BN, beyond), "amin")
    return near_BN & (index_BN == first_BK.gather(1, label_BN))


def _cluster_means(gram_BNN: Tensor, label_BN: Tensor, pool_BN: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Dot products [B, K, N] of all tokens with the mean of each cluster, and its squared length [B, K].

    Summed over members in order of index, so the same on every run, also on a GPU; a product with a one-hot
    matrix would do K times the work.
    """
    rows, tokens = label_BN.shape
    bag_BN = torch.where(pool_BN, label_BN, clusters)  # one bag more, for what is not in the pool
    sorted_BN, order_BN = bag_BN.sort(dim=1, stable=True)
    row_B1 = torch.arange(rows, device=label_BN.device)[:, None]
    members = (order_BN + row_B1 * tokens).flatten()
    bags = torch.arange(rows * (clusters + 1), device=label_BN.device)
    offsets = torch.searchsorted((sorted_BN + row_B1 * (clusters + 1)).flatten(), bags)

    def bag_means(values: Tensor) -> Tensor:
        means = functional.embedding_bag(members, values.reshape(rows * tokens, -1), offsets, mode="mean")
        return means.view(rows, clusters + 1, -1)[:, :clusters]

    means_BKN = bag_means(gram_BNN)
    own_BN = means_BKN.gather(1, label_BN[:, None])[:, 0]
    return means_BKN, bag_means(own_BN)[:, :, 0]


def _first_largest(cosines: Tensor) -> Tensor:
    """Lowest index along dimension 1 whose value is within `TIE` of the largest; long."""
    size = cosines.shape[1]
    index = torch.arange(size, dtype=cosines.dtype, device=cosines.device).view(-1, *(1,) * (cosines.ndim - 2))
    # In place and in floats throughout: this and `_cluster_means` are the cost of k-means, and comparisons
    # that yield booleans take several times as long on a CPU.
    below = cosines.amax(1, keepdim=True).sub(TIE).sub(cosines).clamp_(min=0).sign_()
    return below.mul_(size).add_(index).amin(1).long()


def _ranks(order_BN: Tensor) -> Tensor:
    """Place of every token in a sorting order."""
    place_BN = torch.arange(order_BN.shape[1], device=order_BN.device).expand_as(order_BN)
    return torch.empty_like(order_BN).scatter_(1, order_BN, place_BN)


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """Float32 products as such on this kind of device: no TF32 or bfloat16 inside, no autocast."""
    backends: Any = torch.backends
    matmul = backends.cuda.matmul if device == "cuda" else backends.mkldnn.matmul
    precision = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        matmul.fp32_precision = precision
