"""Who works: this process, or others on this machine. When one of them dies, its tasks go to a new one."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

import torch

from clasp_calib.common.errors import StudyError
from clasp_calib.common.interrupts import interrupts_put_off
from clasp_calib.crew.tasks import ATTEMPTS, Result, Task, ToolRecipe, do_by_recipe


class InProcess:
    """Works here, one task after the other.

    Args:
        tool: what tasks are done with.
        threads: that torch computes with until `close`.
    """

    count = 1

    def __init__(self, tool: Any, threads: int = 1):
        self._tool, self._before = tool, torch.get_num_threads()
        torch.set_num_threads(threads)

    def do(self, tasks: Sequence[Task[Any, Result]]) -> Iterator[tuple[int, Result]]:
        """Each task's number with its result, in order."""
        for number, task in enumerate(tasks):
            yield number, task.done_with(self._tool)

    def close(self) -> None:
        """Give torch its threads back."""
        torch.set_num_threads(self._before)


class Processes:
    """Works in other processes of this machine; when one of them dies, its tasks go to new ones.

    Args:
        recipe: of the tool.
        count: how many.
        devices: that they take in turn; none is the recipe's own.
    """

    def __init__(self, recipe: ToolRecipe, count: int, devices: Sequence[str] = ()):
        self.count = count
        self._recipes = [recipe.on(device) for device in devices] or [recipe]
        self._turn, self._closed = threading.Lock(), False
        self._pool = self._new_pool()

    def do(self, tasks: Sequence[Task[Any, Result]]) -> Iterator[tuple[int, Result]]:
        """Each task's number with its result, as they come.

        Raises:
            StudyError: workers died too often.
        """
        left = list(range(len(tasks)))
        for _ in range(ATTEMPTS):
            pool, futures = self._pool, dict[Future[Result], int]()
            try:
                with interrupts_put_off():
                    for number in left:
                        futures[pool.submit(_do_own, tasks[number])] = number
                for future in as_completed(futures):
                    result = future.result()
                    left.remove(futures[future])
                    yield futures[future], result
                return
            except BrokenProcessPool:
                # All futures of a broken pool fail, those that had ended do not.
                for future, number in futures.items():
                    if number in left and future.done() and not future.cancelled() and not future.exception():
                        left.remove(number)
                        yield number, future.result()
                self._replace(pool)
        raise StudyError(
            f"workers died {ATTEMPTS} times (killed for their memory?); what was done is kept: go on with fewer "
            '--workers, and in a script below `if __name__ == "__main__":`, since each worker imports the script'
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
                raise StudyError("the workers were ended; what was done is kept")
            if self._pool is broken:
                self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Not fork: torch's threads and a GPU's context do not survive it.
        context = multiprocessing.get_context("spawn")
        turn = context.Value("i", 0)
        return ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=(self._recipes, turn))


_OWN: list[ToolRecipe] = []
"""In a worker, of the one tool that it works with."""


def _begin(recipes: Sequence[ToolRecipe], turn: Any) -> None:
    with turn.get_lock():
        _OWN.append(recipes[turn.value % len(recipes)])
        turn.value += 1
    _end_with_parent()


def _do_own(task: Task[Any, Result]) -> Result:
    return do_by_recipe(_OWN[0], task)


def _end_with_parent() -> None:
    """A killed process leaves no workers behind: they wait for tasks on a pipe that they hold open themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
