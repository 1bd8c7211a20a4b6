"""Memory for decoding, shared by all that decode at a time: threads, or worker processes.

One large picture may take what many small ones do. Whoever decodes waits until there is room for its picture.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from PIL import Image

from clasp_calib.runtime.pictures import PIXELS

_UNIT = 1_000_000
"""Pixels that are counted together."""
_EACH = 16
"""Units for each worker where these are more than the largest picture. Our choice: telephones' photos of 12 megapixels
are decoded by all workers at once."""


_BLOCK = 64 << 20
"""Bytes of Pillow's blocks (https://pillow.readthedocs.io/en/stable/reference/block_allocator.html). Our choice: what
is over 32 MiB the C library gives back when it is freed. Of the usual 16 MiB it keeps those of every thread: eight
threads that decoded photos of 108 megapixels one after the other kept 8 GiB, and with these 0.9."""


class Memory:
    """Room for so many pixels at a time.

    Args:
        of: where lock and semaphore are from: the module ``threading``, or a context of ``multiprocessing``.
        workers: how many will share it.
    """

    def __init__(self, of: Any, workers: int):
        self._one_at_a_time = of.Lock()
        Image.core.set_block_size(_BLOCK)  # type: ignore[attr-defined]
        self._room = of.Semaphore(max(PIXELS // _UNIT, _EACH * workers))

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for room for so many pixels, at most `PIXELS`, and keep it within the context."""
        units = max(1, -(-pixels // _UNIT))
        with self._one_at_a_time:  # Two that have half of their room each would wait for ever.
            for _ in range(units):
                self._room.acquire()
        try:
            yield
        finally:
            for _ in range(units):
                self._room.release()


_memory = Memory(threading, 0)


def share(memory: Memory) -> None:
    """Make this process decode in memory that it has in common with others."""
    global _memory  # noqa: PLW0603 - what all threads of a process share
    _memory = memory


def taken(pixels: int) -> AbstractContextManager[None]:
    """`Memory.taken` of what this process shares."""
    return _memory.taken(pixels)
