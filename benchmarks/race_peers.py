"""Optuna's own searches replayed on a score table: who leads after so many evaluations.

Each is given the table as the search would give it: a candidate is a mixture and a rho, a trial measures it on samples
in the table's order, and a candidate-sample pair is paid for once. All of them, like the race, give at any time one
candidate that they would return.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
from race_tables import Floats, Table

from clasp_calib.search.strategies.race import block_ends

Path = list[tuple[int, int]]
"""(evaluations so far, leader), ascending."""
GP_SAMPLES = 200
"""Samples of a trial of the GP sampler, which has no pruner that fits: fewer are noisier, more try fewer candidates."""


class Meter:
    """Counts the evaluations of a table and remembers who led when."""

    def __init__(self, score: Floats, most: int) -> None:
        self.score, self.most, self.spent = score, most, 0
        self.seen = np.zeros(score.shape[1], int)
        self.path: Path = []

    def mean(self, candidate: int, samples: int) -> float:
        """Mean score on the first samples, paid for where it was not before."""
        self.spent += max(0, samples - self.seen[candidate])
        self.seen[candidate] = max(samples, self.seen[candidate])
        if self.spent > self.most:
            raise StopIteration
        return float(self.score[:samples, candidate].mean())

    def lead(self, candidate: int) -> None:
        self.path.append((self.spent, candidate))


def cells(table: Table) -> tuple[list[list[int]], list[float]]:
    """Candidates by mixture and rho, and the rhos; the candidates of a mixture are in the order of their rho."""
    keys = [tuple(row) for row in table.structure.alpha]
    mixtures = list(dict.fromkeys(keys))
    rhos = sorted(set(table.structure.rho.tolist()))
    place = {
        (mixtures.index(k), rhos.index(r)): c for c, (k, r) in enumerate(zip(keys, table.structure.rho, strict=True))
    }
    return [[place[m, r] for r in range(len(rhos))] for m in range(len(mixtures))], rhos


def _studied(table: Table, most: int, sampler: Any, pruner: Any, ends: list[int]) -> Path:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    meter = Meter(table.score, most)
    grid, rhos = cells(table)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    best: dict[int, float] = {}
    for _ in range(2 * len(table.mean)):
        trial = study.ask()
        mixture = trial.suggest_categorical("mixture", list(range(len(grid))))
        candidate = grid[mixture][rhos.index(trial.suggest_categorical("rho", rhos))]
        pruned, value, begun = False, 0.0, 0
        try:
            for end in ends:
                value = meter.mean(candidate, end)
                if isinstance(pruner, optuna.pruners.WilcoxonPruner):
                    # It compares sample by sample; it is asked once a block, as the race is.
                    for sample in range(begun, end):
                        trial.report(float(table.score[sample, candidate]), sample)
                else:
                    trial.report(value, end)
                begun = end
                if end < ends[-1] and trial.should_prune():
                    pruned = True
                    break
        except StopIteration:
            break
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
            best[candidate] = value
            meter.lead(max(best, key=lambda c: (best[c], -c)))
    return meter.path


def tpe_wilcoxon(table: Table, most: int, seed: int) -> Path:
    sampler = optuna.samplers.TPESampler(seed=seed)
    pruner = optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=40)
    return _studied(table, most, sampler, pruner, block_ends(len(table.score), 40, 1.5))


def gp(table: Table, most: int, seed: int) -> Path:
    sampler = optuna.samplers.GPSampler(seed=seed)
    return _studied(table, most, sampler, optuna.pruners.NopPruner(), [min(GP_SAMPLES, len(table.score))])


def successive_halving(table: Table, most: int, seed: int) -> Path:
    sampler = optuna.samplers.RandomSampler(seed=seed)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=40, reduction_factor=2)
    return _studied(table, most, sampler, pruner, block_ends(len(table.score), 40, 1.5))


PEERS: dict[str, Callable[[Table, int, int], Path]] = {
    "TPE + WilcoxonPruner": tpe_wilcoxon,
    "GPSampler": gp,
    "SuccessiveHalvingPruner": successive_halving,
}


def regrets(path: Path, table: Table, evaluations: list[int]) -> Iterator[float]:
    """How far the leader after so many evaluations is below the best; the default's regret before there is one."""
    for most in evaluations:
        leader = next((candidate for spent, candidate in reversed(path) if spent <= most), 0)
        yield float(table.mean.max() - table.mean[leader])
