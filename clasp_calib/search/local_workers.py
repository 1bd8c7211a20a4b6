"""Who scores: this process, or others on this machine. When one of them dies, its tasks go to a new one."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

import torch

from clasp_calib.calib.scoring.evaluator import Evaluator
from clasp_calib.calib.scoring.scores import Scores
from clasp_calib.common.errors import StudyError
from clasp_calib.common.interrupts import interrupts_put_off
from clasp_calib.search.tasks import ATTEMPTS, EvaluatorRecipe, Task, score_by_recipe, score_task


class InProcess:
    """Scores here, one task after the other.

    Args:
        evaluator: what is asked.
        threads: that torch computes with until `close`.
    """

    count = 1

    def __init__(self, evaluator: Evaluator, threads: int = 1):
        self._evaluator, self._before = evaluator, torch.get_num_threads()
        torch.set_num_threads(threads)

    def score(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Scores]]:
        """Each task's number with its scores, in order."""
        for number, task in enumerate(tasks):
            yield number, score_task(self._evaluator, task)

    def close(self) -> None:
        """Give torch its threads back."""
        torch.set_num_threads(self._before)


class Processes:
    """Scores in other processes of this machine; when one of them dies, its tasks go to new ones.

    Args:
        recipe: of the evaluator.
        count: how many.
    """

    def __init__(self, recipe: EvaluatorRecipe, count: int):
        self._recipe, self.count = recipe, count
        self._turn, self._closed = threading.Lock(), False
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
                with interrupts_put_off():
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
            f"workers died {ATTEMPTS} times (killed for their memory?); what was scored is kept: search again with "
            'fewer --workers, and in a script below `if __name__ == "__main__":`, since each worker imports the script'
        )

    def close(self) -> None:
        """End the processes, in the middle of a task too; who still waits for one gets an error."""
        with self._turn:
            self._closed = True
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        # Futures of a broken pool fail, and who waits for them hears of it; those that are cancelled would not tell.
        self._pool.shutdown()

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._turn:
            if self._closed:
                raise StudyError("the search was ended; what was scored is kept")
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

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
