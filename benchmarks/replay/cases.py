"""Tables made hard: what is changed, of which classes, and what a choice is held against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .tables import (
    Draw,
    Tables,
    at_ceiling,
    best_default,
    drawn,
    misplaced_default,
    recorded,
    turned,
    useless_mixtures,
)

FEW = 8


@dataclass(frozen=True)
class Case:
    """One kind of hard table.

    Attributes:
        change: of the tables, given them and the label of the class that is singled out.
        sizes: samples of each class, given how many there are of each, the singled out class, and n.
        judged: which classes count: the singled out one, all the others, or all.
        against_best: whether choices are held against the best candidate of the class; else against the default.
    """

    change: Callable[[Tables, str], Tables] = lambda tables, label: tables
    sizes: Callable[[Sequence[int], int, int], Sequence[int]] = lambda there, single, n: [n] * len(there)
    judged: str = "all"
    against_best: bool = False


def _whatever(change: Callable[[Tables], Tables]) -> Callable[[Tables, str], Tables]:
    return lambda tables, label: change(tables)


def _others_at_ceiling(tables: Tables, label: str) -> Tables:
    """All but three neighbours of the class in the order of classes."""
    place = tables.labels.index(label)
    spared = [tables.labels[(place + step) % len(tables.labels)] for step in range(3)]
    return at_ceiling(tables, [other for other in tables.labels if other not in spared])


def _beside_few(there: Sequence[int], single: int, n: int) -> list[int]:
    return [n if k == single else FEW for k in range(len(there))]


def _beside_many(there: Sequence[int], single: int, n: int) -> list[int]:
    return [n if k == single else size // 2 for k, size in enumerate(there)]


CASES: dict[str, Case] = {
    "as recorded": Case(),
    "default best, in its place": Case(_whatever(best_default)),
    "default best, out of place": Case(_whatever(misplaced_default)),
    "mixtures do not help": Case(_whatever(useless_mixtures)),
    "six classes at the ceiling": Case(_others_at_ceiling),
    "one class turned": Case(turned, judged="single", against_best=True),
    f"one class of n, others of {FEW}": Case(sizes=_beside_few, judged="single", against_best=True),
    "one class of n, others of half the table": Case(sizes=_beside_many, judged="single", against_best=True),
}


def drawn_case(name: str, budget: str, n: int, path: Path, seed: int) -> tuple[Draw, list[int]]:
    """A draw from hard tables, and the indices of the classes that count; the seed singles out a class."""
    case, tables = CASES[name], recorded(budget, path)
    classes = len(tables.labels)
    single = seed % classes
    sizes = case.sizes([len(score) for score in tables.score], single, n)
    draw = drawn(case.change(tables, tables.labels[single]), sizes, seed)
    return draw, [single] if case.judged == "single" else list(range(classes))
