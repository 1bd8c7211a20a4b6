"""Prepares what a test wants. A module of its own, so that a worker process that looks for it imports little."""

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from clasp_calib.cache.prepare import Broken, Prepared


def prepared(shape=(1, 3, 4, 4), modality="image"):
    return Prepared(modality, np.zeros(shape, np.float32), {}, "", 0.0, 0.0)


@dataclass(frozen=True)
class Stub:
    """Takes files whose names are numbers; dies at the one that is deadly."""

    deadly: str = ""

    def __call__(self, path):
        if path.name == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.002 * (int(path.name) % 3))
        return Broken("odd") if int(path.name) % 7 == 6 else prepared((1, int(path.name)))
