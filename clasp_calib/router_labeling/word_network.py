"""A small convolutional network on the vectors of word pieces, in numpy: what a router knows of what words mean.

The network is that of Kim (https://arxiv.org/abs/1408.5882): filters over one, two and three pieces in a row, the
largest response of each over the question, and a linear layer on these.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clasp_calib.router_labeling.word_pieces import piece_ids, spelled

WIDTHS = (1, 2, 3)
"""Of the filters, in pieces."""
ROWS = sum(WIDTHS)


@dataclass(frozen=True)
class WordNetwork:
    """Logits are ``relu(largest responses + shift) @ output``.

    The vector of a piece is ``vectors[piece] * scales[piece]``. A filter of width ``w`` has ``w`` rows. Its response at
    a place is the sum of their products with the ``w`` pieces from there on. In a question of fewer pieces it says
    nothing.
    """

    vectors: NDArray[np.int8]
    """``[pieces of the vocabulary, width]``"""
    scales: NDArray[np.float32]
    """``[pieces of the vocabulary]``"""
    filters: NDArray[np.float32]
    """``[width, ROWS, filters]``: the row of width 1, the two of width 2, the three of width 3."""
    shift: NDArray[np.float32]
    """``[len(WIDTHS) * filters]``, narrow filters first."""
    output: NDArray[np.float32]
    """``[len(WIDTHS) * filters, classes]``"""

    def logits(self, text: str) -> NDArray[np.float32]:
        """``[classes]``

        Args:
            text: as `ngrams.canonical` gives it.
        """
        largest, _ = self._largest(piece_ids(text))
        scores: NDArray[np.float32] = largest @ self.output
        return scores

    def reasons(self, text: str, label: int) -> list[tuple[str, float]]:
        """Words, and what they add to a class's logit beyond its mean over classes: heaviest first.

        A filter's part is that of the pieces where its response is largest; all parts sum to the logit.

        Args:
            text: as `ngrams.canonical` gives it.
            label: place of the class.
        """
        ids = piece_ids(text)
        largest, places = self._largest(ids)
        parts = largest * (self.output[:, label] - self.output.mean(1))
        sums: dict[str, float] = {}
        for number in np.flatnonzero(largest).tolist():
            begin, width = int(places[number]), WIDTHS[number // self.filters.shape[2]]
            words = spelled(ids[begin : begin + width])
            sums[words] = sums.get(words, 0.0) + float(parts[number])
        return sorted(sums.items(), key=lambda one: -one[1])

    def _largest(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """``[len(WIDTHS) * filters]`` each: the largest responses, shifted and cut off at 0, and where they are."""
        width, _, count = self.filters.shape
        vectors = self.vectors[ids] * self.scales[ids, None]
        products = (vectors @ self.filters.reshape(width, -1)).reshape(len(ids), ROWS, count)
        largest, places, row = [], [], 0
        for wide in WIDTHS:
            there = max(0, len(ids) - wide + 1)
            responses = np.stack([products[i : i + there, row + i] for i in range(wide)]).sum(0)
            places.append(responses.argmax(0) if there else np.zeros(count, np.int64))
            largest.append(responses.max(0, initial=-np.inf))
            row += wide
        return np.maximum(np.concatenate(largest) + self.shift, 0), np.concatenate(places)
