"""Controls, which look at no attention and no likeness: tokens at random, an even grid, and means of neighbours."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from clasp_calib.baselines.choosing import proportional
from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


def at_random(patches: int, count: int, seed: int) -> Tensor:
    """``count`` of so many patches, all sets alike, rising; long, on the CPU."""
    return torch.randperm(patches, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def evenly(size: int, count: int) -> Tensor:
    """``count`` whole numbers under ``size``, each in the middle of one of as many equal parts; long."""
    return (2 * torch.arange(count) + 1) * size // (2 * count)


def even_grid(rows: int, columns: int, count: int) -> Tensor:
    """``count`` cells of a grid, in lines that are as far apart as the cells within a line, about; rising, long.

    Lines are taken evenly, and of their cells, one line after the other, ``count`` evenly again.
    """
    lines = min(max(round(sqrt(count * rows / columns)), -(-count // columns)), rows)
    cells = (evenly(rows, lines)[:, None] * columns + torch.arange(columns)).flatten()
    return cells[evenly(len(cells), count)]


def windows(rows: int, columns: int, count: int) -> list[tuple[range, range]]:
    """``count`` windows, nearly squares of one size, that cover a grid line by line: rows and columns of each.

    They overlap by a line where the grid cannot be divided, as in adaptive pooling.
    """
    lines = min(max(round(sqrt(count * rows / columns)), -(-count // columns)), rows, count)
    found = []
    for line, many in enumerate(proportional([columns] * lines, count)):
        height = range(line * rows // lines, -(-(line + 1) * rows // lines))
        found += [(height, range(i * columns // many, -(-(i + 1) * columns // many))) for i in range(many)]
    return found


def pooled(features_RCD: Tensor, count: int) -> Tensor:
    """Mean of the tokens of each of ``count`` `windows`, [count, D]."""
    rows, columns = features_RCD.shape[:2]
    parts = windows(rows, columns, count)
    # All windows of a line are as high.
    lines = {h: features_RCD[h.start : h.stop].mean(0) for h in {h for h, _ in parts}}
    return torch.stack([lines[h][w.start : w.stop].mean(0) for h, w in parts])


@dataclass(frozen=True)
class RandomTokens(InputMethod):
    """Drawn before the decoder, without replacement, of all tiles together, in order, renumbered.

    The same places in every image of as many tokens, on every device: give each sample a ``seed`` of its own.
    """

    name: ClassVar[str] = "random-input"
    paper: ClassVar[str] = "control"
    by_tile: ClassVar[bool] = False

    seed: int = 0

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        return Kept(token_P[at_random(len(token_P), count, self.seed).to(token_P.device)])


@dataclass(frozen=True)
class UniformGrid(InputMethod):
    """An even grid of every tile, in order, renumbered."""

    name: ClassVar[str] = "grid"
    paper: ClassVar[str] = "control"

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        rows, columns = image.shown(token_P)
        return Kept(token_P[even_grid(rows, columns, count).to(token_P.device)])


@dataclass(frozen=True)
class AveragePooling(InputMethod):
    """Means of windows of every tile's projected tokens, renumbered; each stands where the middle of its window was."""

    name: ClassVar[str] = "pooling"
    paper: ClassVar[str] = "control"

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        rows, columns = image.shown(token_P)
        middle = [h[len(h) // 2] * columns + w[len(w) // 2] for h, w in windows(rows, columns, count)]
        features_RCD = image.features_ND[token_P].float().view(rows, columns, -1)
        return Kept(token_P[torch.tensor(middle, device=token_P.device)], features_TD=pooled(features_RCD, count))
