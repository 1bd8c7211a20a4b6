"""Intervals of shares from counts alone, for where resampling cannot speak: few pictures, or all of them alike."""

import math
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
FEW = 10
"""Clusters (pictures) below which counts speak. Our choice: a bootstrap of so few draws few different means, and covers
the truth far less often than it says."""


def share_interval(share: float, of: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of ``of`` independent cases, in [0, 1].

    A mean of scores in [0, 1] may stand for the share: no such scores vary more than those that are 0 or 1.
    """
    middle = (share + Z * Z / (2 * of)) / (1 + Z * Z / of)
    half = Z * math.sqrt(max(share * (1 - share), 0) / of + Z * Z / (4 * of * of)) / (1 + Z * Z / of)
    # Of none and of all the ends are 0 and 1, but for rounding.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def difference_interval(up: float, down: float, of: int) -> tuple[float, float]:
    """Interval of ``up - down``: shares of ``of`` paired cases that one gains and that it loses, in [-1, 1].

    Both have Wilson's interval, and these are put together by their distances (Zou and Donner 2008,
    https://doi.org/10.1002/sim.3095), with the correlation of the two counts of one multinomial.
    """
    free = (1 - up) * (1 - down)
    together = -math.sqrt(up * down / free) if free > 0 else 0.0
    (up_low, up_high), (down_low, down_high) = share_interval(up, of), share_interval(down, of)

    def far(one: float, other: float) -> float:
        return math.sqrt(max(one * one + other * other - 2 * together * one * other, 0))

    low, high = far(up - up_low, down_high - down), far(up_high - up, down - down_low)
    return max(up - down - low, -1.0), min(up - down + high, 1.0)
