"""All classes at one budget: what is asked, what is believed of the answers, and what is chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clasp_calib.crew.tasks import Workers
from clasp_calib.search.engine import Choice, Course, Found
from clasp_calib.search.measuring import Desk, Fed, Measuring
from clasp_calib.search.refine import refined_from
from clasp_calib.search.relative_costs import relative_costs
from clasp_calib.search.shown import Trials
from clasp_calib.search.strategies.pooled import BLOCK
from clasp_calib.search.strategies.registry import name_of
from clasp_calib.search.strategies.strategy import Ask, Problem, Strategy
from clasp_calib.search.verdict import decide
from clasp_calib.search.watchers import Watcher


@dataclass(frozen=True)
class Session:
    """The search at one budget.

    Attributes:
        desk: what it is of.
        strategy: what is measured on which samples.
        seed: of the strategy.
        cautious: keep the default unless the choice is worse with less than this probability; see
            `clasp_calib.search.verdict.decide`.
        refine: also tune each class's leader; what comes of it is judged with all others.
        shown: makes the trials of a study, by a name that is unique among all searches.
        watcher: who is told of progress.
    """

    desk: Desk
    strategy: Strategy
    seed: int
    cautious: float | None
    refine: bool
    shown: Callable[[str], Trials]
    watcher: Watcher

    def most(self, samples: int) -> int:
        """The most evaluations of a class with so many samples, without refining."""
        return self.strategy.most(len(self.desk.candidates), samples)

    def search(self, workers: Workers, fed: Sequence[Fed] = (), begun: Sequence[Ask] = ()) -> Found:
        """Search all classes.

        Args:
            workers: who scores.
            fed: scores of other budgets, which are evidence too.
            begun: what is asked before the strategy's questions, and is evidence too.
        """
        desk, names = self.desk, [of.budget for of in fed]
        setup = desk.identity.setup(self.strategy, self.seed, names)[:8]
        study = f"{desk.budget}/{name_of(self.strategy)}"
        trials = {label: self.shown(f"{study}/{label} {setup}") for label in desk.pools}
        before = max((sum(len(ask.live) for ask in begun if ask.label == label) for label in desk.pools), default=0)
        measuring = Measuring(desk, workers, self.watcher, trials, lambda samples: self.most(samples) + before, fed)
        if begun:
            measuring.measure(begun)
        samples = {label: len(pool) for label, pool in desk.pools.items()}
        self.strategy.search(
            Problem(
                desk.candidates,
                samples,
                measuring.measure,
                measuring.belief,
                measuring.reject,
                self.seed,
                relative_costs(desk.candidates, desk.pruning.schedule, BLOCK),
            )
        )
        belief = measuring.belief()
        choices = self._chosen(measuring)
        for label, of in measuring.classes.items():
            for number in of.live:
                if (mean := choices[label].courses[number].mean) is not None:
                    trials[label].complete(of.candidates[number], mean)
            self.watcher.chosen(measuring.outlines[label], choices[label].summary)
        return Found(
            choices=choices,
            everywhere=desk.candidates[int(belief.mean[: len(choices)].mean(0).argmax())],
            exhaustive={label: desk.candidates[verdict.candidate] for label, verdict in measuring.exhaustive().items()},
            method=belief.method,
            fed=[budget for budget in belief.budgets[0] if budget in names],
        )

    def _chosen(self, measuring: Measuring) -> dict[str, Choice]:
        signals = measuring.signals()
        verdicts = dict(zip(measuring.classes, decide(measuring.belief(), signals, self.cautious), strict=True))
        if self.refine:
            for number, (label, verdict) in enumerate(list(verdicts.items())):
                if refined_from(measuring, label, verdict.leader):
                    verdicts[label] = decide(*measuring.with_tuned(label), self.cautious)[number]
        return {
            label: Choice(
                verdict=verdicts[label],
                courses=tuple(
                    Course(candidate, tuple(column[~np.isnan(column)].tolist()))
                    for candidate, column in zip(of.candidates, of.values[..., 0].T, strict=True)
                ),
                samples=len(of.pool),
                space=len(self.desk.candidates),
            )
            for label, of in measuring.classes.items()
        }
