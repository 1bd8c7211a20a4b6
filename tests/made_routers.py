"""Routers made by hand, for tests."""

import numpy as np

from clasp_calib.router_labeling.ngrams import Hashing
from clasp_calib.router_labeling.router import Router, RouterTraining
from clasp_calib.router_labeling.word_network import ROWS, WIDTHS, WordNetwork
from clasp_calib.router_labeling.word_pieces import SIZE

TAXONOMY = "3" * 64


def made_router(
    classes: tuple[str, ...] = ("object", "text", "default"), bits: int = 8, seed: int = 0, **changes: object
) -> Router:
    """A router with random weights; ``changes`` are of its other fields."""
    rng = np.random.default_rng(seed)
    fields = {
        "classes": classes,
        "default": classes[-1],
        "taxonomy": TAXONOMY,
        "weights": rng.normal(size=(1 << bits, len(classes))).astype(np.float32),
        "bias": rng.normal(size=len(classes)).astype(np.float32),
        "temperature": 0.5,
        "threshold": 0.4,
        "training": RouterTraining("1" * 64, 100, ("a labeler",)),
        "hashing": Hashing(bits),
    }
    return Router(**(fields | changes))


def made_network(classes: int = 3, width: int = 4, filters: int = 5, seed: int = 0) -> WordNetwork:
    """A network with random weights."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    responses = len(WIDTHS) * filters
    vectors = rng.integers(-127, 128, (SIZE, width)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, SIZE).astype(np.float32)
    return WordNetwork(vectors, scales, normal(width, ROWS, filters), normal(responses), normal(responses, classes))
