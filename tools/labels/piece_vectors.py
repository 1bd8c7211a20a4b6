"""Vectors of word pieces for the packaged router: each piece alone through MiniLM, in few dimensions and eight bits."""

import numpy as np
from numpy.typing import NDArray

from clasp_calib.router_labeling.embedders import MiniLM
from clasp_calib.router_labeling.word_pieces import SIZE

WIDTH = 64
_START, _END = 101, 102
_BATCH = 512
_WORDS = slice(999, 20_000)
"""Places of pieces that stand in text: before them are marks, behind them rare ones."""


def meanings(model: MiniLM) -> NDArray[np.float32]:
    """``[SIZE, 384]``: the mean hidden state over a piece between the two ends, as the model gives it."""
    found = np.zeros((SIZE, 384), np.float32)
    for begin in range(0, SIZE, _BATCH):
        places = range(begin, min(begin + _BATCH, SIZE))
        found[begin : places.stop] = model.hidden(np.array([[_START, place, _END] for place in places])).mean(1)
    return found


def reduced(rows: NDArray[np.float32], width: int = WIDTH) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Vectors ``[SIZE, width]`` and their scales ``[SIZE]``, of which the products have a deviation of about 1.

    Directions are the principal ones of the rows' directions, scaled halfway to equal deviation: the weak ones carry
    meaning too.

    Args:
        rows: ``[SIZE, wider]``.
        width: of what is returned.
    """
    centred = rows - rows.mean(0)
    directions = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-6)
    centre = directions[_WORDS].mean(0)
    _, _, axes = np.linalg.svd(directions[_WORDS] - centre, full_matrices=False)
    found = (directions - centre) @ axes[:width].T
    found /= np.sqrt(found[_WORDS].std(0))
    found /= found[_WORDS].std()
    scales = (np.abs(found).max(1) / 127).clip(1e-6).astype(np.float32)
    return np.round(found / scales[:, None]).astype(np.int8), scales
