"""Choosing that several methods do: the largest first, and whole shares."""

from collections.abc import Sequence

import torch
from torch import Tensor


def first_largest(values: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest along dimension 0, largest first; of equal ones the lower index first."""
    return torch.argsort(values, dim=0, descending=True, stable=True)[:count]


def proportional(sizes: Sequence[float], count: int, limits: Sequence[int] | None = None) -> list[int]:
    """Whole shares of ``count`` in proportion to ``sizes``, by largest remainder; of equal ones the first first.

    No share passes its limit, which is its size unless given; what is over goes to the others. The shares sum to
    ``count``, or to all limits if those are less.
    """
    limits = [int(size) for size in sizes] if limits is None else list(limits)
    shares, open_, left = list(limits), list(range(len(sizes))), min(count, sum(limits))
    while open_:
        total = sum(sizes[i] for i in open_)
        quota = {i: left * (sizes[i] / total if total else 1 / len(open_)) for i in open_}
        full = [i for i in open_ if quota[i] >= limits[i]]
        if not full:
            break
        left -= sum(limits[i] for i in full)
        open_ = [i for i in open_ if i not in full]
    for i in open_:
        shares[i] = int(quota[i] + 1e-9)
    rest = left - sum(shares[i] for i in open_)
    for i in sorted(open_, key=lambda i: (shares[i] - quota[i], i))[:rest]:
        shares[i] += 1
    return shares
