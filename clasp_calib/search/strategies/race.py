"""The race with a promise: see `clasp_calib.search.racing`."""

from dataclasses import dataclass

import numpy as np

from clasp_calib.search.racing import RaceSettings, Standing, Structure, race
from clasp_calib.search.strategies.strategy import DEFAULT, Problem


@dataclass(frozen=True)
class Race(RaceSettings):
    """Drops candidates by paired evidence, and stops when the leader is surely good enough."""

    def search(self, problem: Problem) -> list[int]:
        """Those that were live when the race ended, best first."""
        alphas = np.array([candidate.alpha for candidate in problem.candidates])
        rhos = np.array([candidate.rho for candidate in problem.candidates])

        def tell(standing: Standing) -> None:
            problem.reject(standing.rejected)

        result = race(
            problem.samples,
            len(problem.candidates),
            problem.measure,
            self,
            Structure(alphas, rhos),
            DEFAULT,
            tell,
        )
        return list(result.ranked)

    def most(self, candidates: int, samples: int) -> int:
        """Where nothing can be told apart, everything is measured."""
        return candidates * samples
