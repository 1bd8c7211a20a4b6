"""Control: tokens of an even grid."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from clasp_calib.baselines.input_method import InputMethod
from clasp_calib.runtime.encoding import Encoded, Kept


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


@dataclass(frozen=True)
class UniformGrid(InputMethod):
    """An even grid of every tile, in order, renumbered."""

    name: ClassVar[str] = "grid"
    paper: ClassVar[str] = "control"

    def kept(self, image: Encoded, token_P: Tensor, count: int) -> Kept:
        """See `InputMethod`."""
        rows, columns = image.shown(token_P)
        return Kept(token_P[even_grid(rows, columns, count).to(token_P.device)])
