"""Dual-stage selection, slow and obvious: one row, float64, feature space, loops over tokens."""

import math

import torch
from torch import Tensor

TIE = 1e-5
SHORT = 1e-2


def reference_select(
    relevance: list[float], features_ND: Tensor, pivots: int, medoids: int, iterations: int = 5
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
    seeds = by_redundancy[:medoids] if chosen else farthest_first(unit, medoids)
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


def farthest_first(unit: list[Tensor], count: int) -> list[int]:
    mean = sum(unit, torch.zeros_like(unit[0])) / len(unit)
    length = float(mean.norm())
    seeds = [first_largest([float(v @ mean) / length for v in unit])] if length > SHORT else [0]
    while len(seeds) < count:
        distance = [
            -math.inf if i in seeds else -max(float(unit[i] @ unit[j]) for j in seeds) for i in range(len(unit))
        ]
        seeds.append(first_largest(distance))
    return seeds
