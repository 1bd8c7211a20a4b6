"""What is scored at a time, whoever does it: one sample with all the candidates that are asked about it.

It is scored in one piece, so that a result does not depend on how many workers there are; it does depend, in its last
bits, on how many threads each of them computes with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.containing import contained
from clasp_calib.common.errors import StudyError
from clasp_calib.common.samples import Sample

ATTEMPTS = 3
"""How often a task is given to new workers when those before it died. Our choice: a machine that kills them for their
memory would kill them for ever."""


@dataclass(frozen=True)
class Task:
    """Candidates to score on one sample."""

    sample: Sample
    candidates: tuple[Candidate, ...]
    pruning: Pruning


class Workers(Protocol):
    """Score tasks."""

    count: int

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Scores]]:
        """Each task's number with its scores, as they come."""
        ...

    def close(self) -> None:
        """No more tasks will come."""
        ...


@dataclass(frozen=True)
class EvaluatorRecipe:
    """What another process needs to make the evaluator of this search."""

    model: str
    """Directory or Hub id, as transformers loads it."""
    device: str
    dtype: str
    prompt: str
    cache: Path | None
    layers: tuple[int, ...]
    threads: int
    """That torch computes with."""
    weights: str
    """Digest of the weights that the search began with."""
    objective: str
    """What the evaluator gives."""

    def evaluator(self) -> Evaluator:
        """Load the model and make the evaluator.

        Raises:
            StudyError: the model here has other weights than the one that the search began with.
        """
        from clasp_calib.artifacts.checkpoint_digest import weights_digest
        from clasp_calib.calib.scoring.feature_sources import open_source
        from clasp_calib.calib.scoring.prompting import Prompter
        from clasp_calib.runtime.loading import load_model

        torch.set_num_threads(self.threads)
        model, processor = load_model(self.model, self.device, self.dtype)
        if weights_digest(model) != self.weights:
            raise StudyError(
                f"a worker loaded the model {self.model} with other weights than the search began with; give all "
                "machines the same model, and save one that was changed in memory with save_pretrained and load it "
                "from there, or use one worker"
            )
        prompter = Prompter(processor, model, self.prompt)
        features = open_source(self.cache, model, processor).at(self.layers)
        return Evaluator(model, prompter, features, objective=self.objective)


def score_task(evaluator: Evaluator, task: Task) -> Scores:
    """What the evaluator says of a task."""
    return evaluator.scores(task.sample, task.candidates, task.pruning)


def score_by_recipe(recipe: EvaluatorRecipe, task: Task) -> Scores:
    """Score a task in a worker, which makes its evaluator for its first task and keeps it."""
    with contained("making the evaluator of a worker"):
        evaluator = _evaluator(recipe)
    return score_task(evaluator, task)


@lru_cache(maxsize=1)
def _evaluator(recipe: EvaluatorRecipe) -> Evaluator:
    return recipe.evaluator()
