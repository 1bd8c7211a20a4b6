"""Decoding ahead of the encoder and writing behind it, so that it need not wait for either."""

import os
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from types import TracebackType
from typing import Generic, Self, TypeVar

from PIL import Image

from clasp_calib.cache import decoding_memory
from clasp_calib.cache.prepare import Broken, Prepared, Preparer, large_pictures_allowed
from clasp_calib.common.errors import CacheError
from clasp_calib.common.interrupts import interrupts_put_off
from clasp_calib.common.media import Media

T = TypeVar("T")
FEW = 512
"""Fewer pictures than this are decoded in threads: a process takes seconds to start, in which a core decodes them."""
_preparer: Preparer | None = None
"""Of a worker process."""


def workers_for(pictures: int) -> int:
    """How many processes decode so many pictures; 0 stands for threads of this process."""
    return 0 if pictures < FEW else len(os.sched_getaffinity(0))


def prepared_ahead(
    preparer: Preparer, files: Sequence[Media], workers: int, ahead: int
) -> Generator[Prepared | Broken, None, None]:
    """Prepare files in worker processes, or in threads, and give them in their order.

    Args:
        preparer: what to do with each.
        files: the pictures.
        workers: processes; 0 for threads.
        ahead: no more files than this are being prepared or wait to be taken, so that memory is bounded.

    Raises:
        CacheError: a worker process died.
    """
    pending: deque[Future[Prepared | Broken]] = deque()
    with _executor(preparer, workers) as (pool, prepare):
        try:
            for file in files:
                with interrupts_put_off():
                    pending.append(pool.submit(prepare, file))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise CacheError(
                f"one of the {workers} processes that decode pictures died: killed, perhaps for its memory, or unable "
                "to start, as in a script without `if __name__ == '__main__':`; run again with fewer workers (0 takes "
                "threads instead): what is cached so far stays"
            ) from error


@contextmanager
def _executor(preparer: Preparer, workers: int) -> Iterator[tuple[Executor, Callable[[Media], Prepared | Broken]]]:
    with large_pictures_allowed():
        if workers:
            # Spawned rather than forked: a fork inherits the locks of torch's threads and cannot use CUDA's.
            context = get_context("spawn")
            given = (preparer, decoding_memory.Memory(context, workers))
            pool: Executor = ProcessPoolExecutor(workers, context, _begin_worker, given)
            prepare: Callable[[Media], Prepared | Broken] = _prepare_in_worker
        else:
            pool, prepare = ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))), preparer
        try:
            yield pool, prepare
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(preparer: Preparer, memory: decoding_memory.Memory) -> None:
    import torch

    decoding_memory.share(memory)

    global _preparer  # noqa: PLW0603 - an initializer has no other way to leave something for the calls
    _preparer = preparer
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # as in `large_pictures_allowed`, for good
    torch.set_num_threads(1)  # There is a process for every core already.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker waits for work on a pipe that it holds both ends of, so it would outlive a parent that is killed.
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _prepare_in_worker(path: Media) -> Prepared | Broken:
    assert _preparer is not None
    return _preparer(path)


class BackgroundWriter(Generic[T]):
    """Calls a function with each item that it is given, in order, in a thread of its own. A context manager."""

    def __init__(self, write: Callable[[T], None], room: int):
        """Start the thread.

        Args:
            write: what to do with an item.
            room: items that may wait; `put` blocks while there are more.
        """
        self.seconds = 0.0
        """That ``write`` took so far."""
        self.waited = 0.0
        """Seconds that `put` and leaving the context blocked so far."""
        self._write = write
        self._error: BaseException | None = None
        # Not a bounded Queue: an interrupt in the middle of its put, which is written in Python, can leave the other
        # thread asleep for good. So there is a queue of items, and one of permits to hand one over.
        self._waiting: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(room):
            self._permits.put(None)
        # A daemon, or an interrupt just before the context is entered would leave a thread that Python waits for when
        # it ends. Ending in the middle of a write is no worse than a kill.
        self._thread = threading.Thread(target=self._run, name="cache writer", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item; it is not written yet when this returns.

        Raises:
            BaseException: what ``write`` raised for an earlier item; nothing was written after that one.
        """
        begun = time.perf_counter()
        self._permits.get()
        self.waited += time.perf_counter() - begun
        self._waiting.put(item)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is written; raises what ``write`` raised, unless something else is raised already."""
        begun = time.perf_counter()
        self._waiting.put(None)
        self._thread.join()
        self.waited += time.perf_counter() - begun
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._permits.put(None)
            if self._error is not None:
                continue  # Take the rest, so that nobody waits for room.
            begun = time.perf_counter()
            try:
                self._write(item)
            except BaseException as error:  # raised again where the items come from
                self._error = error
            self.seconds += time.perf_counter() - begun
