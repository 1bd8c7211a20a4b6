"""However many decode at a time, their pictures have no more pixels together than there is memory for."""

import threading
import time
from multiprocessing import get_context

import pytest

from clasp_calib.cache.decoding_memory import Memory
from clasp_calib.runtime.pictures import PIXELS


@pytest.mark.parametrize("of", [threading, get_context("spawn")], ids=["threads", "processes"])
@pytest.mark.parametrize("pixels", [PIXELS, PIXELS // 2, PIXELS // 3, 1])
def test_no_more_is_taken_than_there_is(of, pixels):
    memory, counting, now, most = Memory(of, 0), threading.Lock(), 0, 0

    def decode():
        nonlocal now, most
        with memory.taken(pixels):
            with counting:
                now += pixels
                most = max(most, now)
            time.sleep(0.005)
            with counting:
                now -= pixels

    threads = [threading.Thread(target=decode, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert pixels <= most <= PIXELS


def test_what_failed_gives_its_room_back():
    memory = Memory(threading, 0)
    for _ in range(3):
        with pytest.raises(ValueError, match="torn"), memory.taken(PIXELS):
            raise ValueError("torn")


def test_many_workers_have_more_room():
    memory = Memory(threading, 64)
    with memory.taken(PIXELS), memory.taken(PIXELS):
        pass
