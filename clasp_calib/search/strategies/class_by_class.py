"""Strategies that search every class for itself: each is a course of questions, and all courses run side by side."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.search.strategies.strategy import Ask, Observations, Problem, Strategy

Question = tuple[Sequence[int], Sequence[int]]
"""Samples and live candidates, as in `Ask`."""
Questions = Generator[Question, Observations, None]
"""Yields questions, and is sent what was scored."""


@dataclass(frozen=True)
class OneClass:
    """The search of one class: as of `clasp_calib.search.strategies.strategy.Problem`."""

    candidates: Sequence[Candidate]
    samples: int
    reject: Callable[[Sequence[int]], None]
    seed: int = 0


class ClassByClass(Strategy):
    """Derive from it and write the course of one class."""

    def course(self, one: OneClass) -> Questions:
        """The questions about a class, which may depend on the answers to those before."""
        raise NotImplementedError

    def search(self, problem: Problem) -> None:
        """Ask each class's next question, all of them at once, as long as there are any."""
        courses = {
            label: self.course(OneClass(problem.candidates, samples, partial(problem.reject, label), problem.seed))
            for label, samples in problem.samples.items()
        }
        asks = [Ask(label, *next(course)) for label, course in courses.items()]
        while asks:
            answers = problem.measure(asks)
            going, asks = asks, []
            for ask, answer in zip(going, answers, strict=True):
                try:
                    asks.append(Ask(ask.label, *courses[ask.label].send(answer)))
                except StopIteration:
                    continue
