"""All mixtures of some layers in equal steps: the simplex lattice."""

from collections.abc import Iterator, Sequence
from math import comb

from clasp_calib.common.errors import InputError

MOST = 20_000
"""Mixtures that a space may hold. Our choice: more would take longer to list than to search."""


def lattice(layers: Sequence[int], steps: int) -> Iterator[dict[int, float]]:
    """Weights by layer, each a multiple of ``1 / steps``, summing to 1; layers of weight 0 are left out.

    Args:
        layers: that may be mixed.
        steps: at least 1; with 4 and five layers there are 70 mixtures.

    Raises:
        InputError: there are too many.
    """
    count = comb(len(layers) + steps - 1, steps)
    if count > MOST:
        raise InputError(
            f"a lattice of {steps} steps over {len(layers)} layers has {count} mixtures, more than {MOST}; "
            "take fewer steps, or cache or name fewer layers"
        )
    for parts in _compositions(steps, len(layers)):
        yield {layer: part / steps for layer, part in zip(layers, parts, strict=True) if part}


def _compositions(total: int, places: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a number as an ordered sum of so many non-negative ones, the first largest first."""
    if places == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(total - first, places - 1):
            yield (first, *rest)
