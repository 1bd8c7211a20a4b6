"""A call leaves the caller's model and random state as it found them, however it ends."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Run a block with the model in evaluation mode and without gradients; put everything back afterwards.

    Put back are the training mode of every submodule, the random state of Python, NumPy and torch (the model's GPU
    included), and the number of threads that torch computes with. Parameters and their gradients are not touched.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    python, numpy, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_num_threads(threads)
