"""Dual-stage selection, slow and obvious: one row, float64, feature space, loops over tokens."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TIE = 1e-5
SHORT = 1e-2


def reference_select(
    relevance: list[float],
    features_ND: Tensor,
    pivots: int,
    medoids: int,
    iterations: int = 5,
    seeding: str = "redundancy",
) -> tuple[set[int], set[int]]:
    """Kept tokens and pivots of one row."""
    unit = [v / v.norm() if v.norm() > 0 else v for v in features_ND.double()]
    everyone = range(len(unit))
    chosen = sorted(everyone, key=lambda i: (-relevance[i], i))[:pivots]
    pool = [i for i in everyone if i not in chosen]
    if medoids == 0:
        return set(chosen), set(chosen)
    if len(pool) <= medoids:
        return set(everyone), set(chosen)
    redundancy = {i: round(max((float(unit[i] @ unit[j]) for j in chosen), default=0.0), 5) for i in pool}
    by_redundancy = sorted(pool, key=lambda i: (redundancy[i], i))
    if not chosen or seeding == "farthest":
        seeds = farthest_first(unit, pool, medoids)
    else:
        seeds = by_redundancy[:medoids] if seeding == "redundancy" else farthest_first(unit, pool, medoids, chosen)
    centres = [unit[i] for i in seeds]
    for _ in range(iterations):
        for centre, members in enumerate(assign(unit, pool, centres)):
            total = sum((unit[i] for i in members), torch.zeros_like(unit[0]))
            if members and total.norm() / len(members) > SHORT:
                centres[centre] = total / total.norm()
    kept = []
    for centre, members in zip(centres, assign(unit, pool, centres), strict=True):
        if members:
            kept.append(members[first_largest([float(unit[i] @ centre) for i in members])])
    spare = [i for i in by_redundancy if i not in kept]
    kept += spare[: medoids - len(kept)]
    return {*chosen, *kept}, set(chosen)


def first_largest(values: list[float]) -> int:
    return next(i for i, value in enumerate(values) if value >= max(values) - TIE)


def assign(unit: list[Tensor], pool: list[int], centres: list[Tensor]) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in centres]
    for i in pool:
        members[first_largest([float(unit[i] @ centre) for centre in centres])].append(i)
    return members


def farthest_first(unit: list[Tensor], pool: list[int], count: int, before: Sequence[int] = ()) -> list[int]:
    """From the token nearest the mean of the pool, or the farthest from those before, to the farthest from all."""
    seeds = [] if before else [nearest_mean(unit, pool)]
    while len(seeds) < count:
        known = [*before, *seeds]
        distance = [-math.inf if i in seeds else -max(float(unit[i] @ unit[j]) for j in known) for i in pool]
        seeds.append(pool[first_largest(distance)])
    return seeds


def nearest_mean(unit: list[Tensor], pool: list[int]) -> int:
    mean = sum((unit[i] for i in pool), torch.zeros_like(unit[0])) / len(pool)
    length = float(mean.norm())
    return pool[first_largest([float(unit[i] @ mean) / length for i in pool])] if length > SHORT else pool[0]
