"""Optuna's own searches replayed on a table of one class: who leads after so many evaluations.

Each is given the table as the search would give it: a candidate is a mixture and a rho, a trial measures it on samples
in the table's order, and a candidate-sample pair is paid for once. There are as many trials as candidates.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna

from clasp_calib.calib.scoring.candidate import Candidate

from .tables import Floats

Path = list[tuple[int, int]]
"""(evaluations so far, leader), ascending."""
GROWTH = 1.5


class Meter:
    """Counts the evaluations of a table and remembers who led when."""

    def __init__(self, table: Floats, most: int) -> None:
        self.table, self.most, self.spent = table, most, 0
        self.seen = np.zeros(table.shape[1], int)
        self.path: Path = []

    def mean(self, candidate: int, samples: int) -> float:
        """Mean on the first samples, paid for where it was not before."""
        self.spent += max(0, samples - self.seen[candidate])
        self.seen[candidate] = max(samples, self.seen[candidate])
        if self.spent > self.most:
            raise StopIteration
        return float(self.table[:samples, candidate].mean())

    def lead(self, candidate: int) -> None:
        self.path.append((self.spent, candidate))


def cells(candidates: Sequence[Candidate]) -> tuple[list[list[int]], list[float]]:
    """Candidates by mixture and rho, and the rhos; the candidates of a mixture are in the order of their rho."""
    mixtures = list(dict.fromkeys(candidate.alpha for candidate in candidates))
    rhos = sorted({candidate.rho for candidate in candidates})
    place = {(candidate.alpha, candidate.rho): c for c, candidate in enumerate(candidates)}
    return [[place[mixture, rho] for rho in rhos] for mixture in mixtures], rhos


def _studied(table: Floats, candidates: Sequence[Candidate], sampler: Any, pruner: Any, ends: list[int]) -> Path:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    meter = Meter(table, table.size)
    grid, rhos = cells(candidates)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    best: dict[int, float] = {}
    for _ in range(len(candidates)):
        trial = study.ask()
        mixture = trial.suggest_categorical("mixture", list(range(len(grid))))
        candidate = grid[mixture][rhos.index(trial.suggest_categorical("rho", rhos))]
        pruned, value, begun = False, 0.0, 0
        for end in ends:
            value = meter.mean(candidate, end)
            if isinstance(pruner, optuna.pruners.WilcoxonPruner):
                # It compares sample by sample; it is asked once a block.
                for sample in range(begun, end):
                    trial.report(float(table[sample, candidate]), sample)
            else:
                trial.report(value, end)
            begun = end
            if end < ends[-1] and trial.should_prune():
                pruned = True
                break
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
            best[candidate] = value
            meter.lead(max(best, key=lambda c: (best[c], -c)))
    return meter.path


def _ends(samples: int, first: int) -> list[int]:
    """``first``, then each 1.5 times as many; the last is all."""
    ends, end = [], first
    while end < samples:
        ends.append(end)
        end = max(end + 1, round(end * GROWTH))
    return [*ends, samples]


def tpe_wilcoxon(table: Floats, candidates: Sequence[Candidate], seed: int) -> Path:
    first = max(4, len(table) // 4)
    sampler = optuna.samplers.TPESampler(seed=seed)
    pruner = optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=first)
    return _studied(table, candidates, sampler, pruner, _ends(len(table), first))


def gp(table: Floats, candidates: Sequence[Candidate], seed: int) -> Path:
    sampler = optuna.samplers.GPSampler(seed=seed)
    few = min(len(table), max(8, len(table) // 4))
    return _studied(table, candidates, sampler, optuna.pruners.NopPruner(), [few])


Peer = Callable[[Floats, Sequence[Candidate], int], Path]
PEERS: dict[str, Peer] = {"TPE + WilcoxonPruner": tpe_wilcoxon, "GPSampler": gp}


def leaders(peer: Peer, table: Floats, candidates: Sequence[Candidate], most: Sequence[int], seed: int) -> list[int]:
    """Who leads after so many evaluations each; the default before anyone does."""
    path = peer(table, candidates, seed)
    return [next((candidate for spent, candidate in reversed(path) if spent <= limit), 0) for limit in most]
