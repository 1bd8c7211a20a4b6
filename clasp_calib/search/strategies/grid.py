"""Exhaustive search: every candidate on every sample."""

from dataclasses import dataclass

from clasp_calib.search.strategies.strategy import Problem, Strategy, ranked


@dataclass(frozen=True)
class Grid(Strategy):
    """Measures everything: what the other strategies are judged by."""

    def search(self, problem: Problem) -> list[int]:
        """All candidates, best first."""
        everyone = range(len(problem.candidates))
        return ranked(everyone, problem.measure(range(problem.samples), everyone).score)
