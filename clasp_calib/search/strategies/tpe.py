"""Optuna's tree-structured Parzen estimator, for spaces that are too big to try one by one.

`TPESampler <https://optuna.readthedocs.io/en/stable/reference/samplers/generated/optuna.samplers.TPESampler.html>`_
suggests weights of layers and a rho; the candidate of the space that is nearest and was not tried is measured.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from clasp_calib.common.settings import check_count
from clasp_calib.search.strategies.class_by_class import ClassByClass, OneClass, Question, Questions
from clasp_calib.search.strategies.strategy import DEFAULT, Observations, ranked


@dataclass(frozen=True)
class TPE(ClassByClass):
    """Tries ``trials`` candidates on the first ``samples`` samples; the best ``keep`` of them go on to all samples.

    Trying is cheap because it is short: what TPE learns from is noisy, and the second step corrects it.
    """

    trials: int = 64
    """Candidates to try."""
    samples: int = 64
    """Samples to try each of them on."""
    keep: int = 8
    """Best candidates that are measured on all samples."""

    def __post_init__(self) -> None:
        """Refuse what cannot be counted.

        Raises:
            InputError: a number that is none, or too small.
        """
        for name in ("trials", "samples", "keep"):
            check_count(name, getattr(self, name), 1)

    def course(self, one: OneClass) -> Questions:
        """The trials, then the rest of the samples for the best of them."""
        few = range(min(self.samples, one.samples))
        tried = yield from self._trials(one, few)
        short = ranked(list(tried), np.stack(list(tried.values()), axis=1))[: self.keep]
        kept = sorted({DEFAULT, *short})
        one.reject([number for number in tried if number not in kept])
        yield range(one.samples), kept

    def most(self, candidates: int, samples: int) -> int:
        """All trials, and the rest of the samples for the best of them and the default."""
        few, trials = min(self.samples, samples), min(self.trials, candidates)
        return trials * few + min(self.keep + 1, trials) * (samples - few)

    def _trials(self, one: OneClass, few: range) -> Generator[Question, Observations, dict[int, np.ndarray]]:
        """Gives the scores of tried candidates on the first samples, by their numbers."""
        import optuna
        from optuna.distributions import BaseDistribution, FloatDistribution

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        points = np.array([[*c.alpha, c.rho] for c in one.candidates])
        used = [d for d in range(points.shape[1]) if points[:, d].any()]
        points = points[:, used]
        names = [f"dimension {d}" for d in used]
        space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in names}
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=one.seed, constant_liar=False)
        )
        tried: dict[int, np.ndarray] = {}
        number = DEFAULT
        while True:
            answer = yield few, [number]
            tried[number] = answer.score[:, 0]
            params = dict(zip(names, points[number].tolist(), strict=True))
            value = float(tried[number].mean())
            # What was measured is the candidate, not the point that led to it.
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
            if len(tried) == min(self.trials, len(points)):
                return tried
            suggested = study.ask(space)
            study.tell(suggested, state=optuna.trial.TrialState.FAIL)
            number = _nearest(points, np.array([suggested.params[name] for name in names]), tried)


def _nearest(points: np.ndarray, point: np.ndarray, taken: dict[int, np.ndarray]) -> int:
    """The free row of ``points [C, D]`` nearest to a point by L1; its weights, all but the last value, sum to 1."""
    weights = point[:-1] / point[:-1].sum() if point[:-1].any() else np.full(len(point) - 1, 1 / (len(point) - 1))
    distance = np.abs(points - np.append(weights, point[-1])).sum(1)
    distance[list(taken)] = np.inf
    return int(distance.argmin())
