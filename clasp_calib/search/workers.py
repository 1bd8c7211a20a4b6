"""Who scores: this process, or others on this machine. The answers are the same, and so is what is asked of whom.

The unit of work is one sample with all the candidates that are asked about it. It is scored in one piece, whoever does
it, so that a result does not depend on how many workers there are; it does depend, in its last bits, on how many
threads each of them computes with.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

import torch

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.scores import Scores
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
    generate: bool = False
    """Answer by decoding, token by token, even where one forward would tell."""


class Workers(Protocol):
    """Score tasks; several threads may ask at once."""

    count: int

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Scores]]:
        """Each task's number with its scores, as they come."""
        ...

    def close(self) -> None:
        """No more tasks will come."""
        ...


def score_task(evaluator: Evaluator, task: Task) -> Scores:
    """What the evaluator says of a task."""
    return evaluator.scores(task.sample, task.candidates, task.pruning, generate=task.generate)


class InProcess:
    """Scores here, one task after the other."""

    count = 1

    def __init__(self, evaluator: Evaluator):
        self._evaluator = evaluator

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Scores]]:
        """Each task's number with its scores, in order."""
        for number, task in enumerate(tasks):
            yield number, score_task(self._evaluator, task)

    def close(self) -> None:
        """Nothing to end."""


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
        from clasp_calib.calib.scoring.feature_sources import open_source
        from clasp_calib.calib.scoring.prompting import Prompter
        from clasp_calib.runtime.adapters import adapter_for
        from clasp_calib.runtime.loading import load_model
        from clasp_calib.search.identity import weights_digest

        torch.set_num_threads(self.threads)
        model, processor = load_model(self.model, self.device, self.dtype)
        if weights_digest(model) != self.weights:
            raise StudyError(
                f"a worker loaded the model {self.model} with other weights than the search began with; "
                "give all machines the same model"
            )
        prompter = Prompter(processor, adapter_for(model).tokens_per_image, self.prompt)
        features = open_source(self.cache, model, processor).at(self.layers)
        return Evaluator(model, prompter, features, objective=self.objective)


@lru_cache(maxsize=1)
def _evaluator(recipe: EvaluatorRecipe) -> Evaluator:
    return recipe.evaluator()


def score_by_recipe(recipe: EvaluatorRecipe, task: Task) -> Scores:
    """Score a task in a worker, which makes its evaluator for its first task and keeps it."""
    return score_task(_evaluator(recipe), task)


class Processes:
    """Scores in other processes of this machine; when one of them dies, its tasks go to new ones.

    Args:
        recipe: of the evaluator.
        count: how many.
    """

    def __init__(self, recipe: EvaluatorRecipe, count: int):
        self._recipe, self.count = recipe, count
        self._turn = threading.Lock()
        self._pool = self._new_pool()

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Scores]]:
        """Each task's number with its scores, as they come.

        Raises:
            StudyError: workers died too often.
        """
        left = list(range(len(tasks)))
        for _ in range(ATTEMPTS):
            pool, futures = self._pool, dict[Future[Scores], int]()
            try:
                for number in left:
                    futures[pool.submit(score_by_recipe, self._recipe, tasks[number])] = number
                for future in as_completed(futures):
                    scores = future.result()
                    left.remove(futures[future])
                    yield futures[future], scores
                return
            except BrokenProcessPool:
                # All futures of a broken pool fail, those that had ended do not.
                for future, number in futures.items():
                    if number in left and future.done() and not future.cancelled() and not future.exception():
                        left.remove(number)
                        yield number, future.result()
                self._replace(pool)
        raise StudyError(
            f"workers died {ATTEMPTS} times (killed for their memory?); what was scored is kept: "
            "search again with fewer --workers"
        )

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._turn:
            if self._pool is broken:
                self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Not fork: torch's threads and a GPU's context do not survive it.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A killed search leaves no workers behind: they wait for tasks on a pipe that they hold open themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # An interrupt from the keyboard reaches all processes of the terminal; the parent's is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class Crew:
    """Who is asked to score."""

    workers: int = 1
    """Processes on this machine; one is this process itself."""
    threads: int | None = None
    """That each computes with; None shares out what torch would take, and is one on a cluster."""
    ray: bool = False
    """A Ray cluster instead."""
    ray_address: str | None = None
    """None is a cluster on this machine."""


ONE_PROCESS = Crew()


def crew_for(crew: Crew, evaluator: Evaluator, recipe: EvaluatorRecipe) -> Workers:
    """The workers of a search.

    Args:
        crew: what was asked for.
        evaluator: of this process.
        recipe: to make the same elsewhere.
    """
    if crew.ray:
        from clasp_calib.search.cluster import RayWorkers

        return RayWorkers(recipe, crew.ray_address)
    if crew.workers == 1 and crew.threads:
        torch.set_num_threads(crew.threads)
    return Processes(recipe, crew.workers) if crew.workers > 1 else InProcess(evaluator)
