"""Where visual tokens come from.

N visual tokens of a picture.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the visual tokens of one image come from. A *cell* is what the projector makes one token of.

    ``cell_N`` is long: of every visual token the index of its cell, -1 for one that ends a line. Cells are counted
    tile by tile, each of ``grid`` rows and columns, line by line. ``place_U`` is where a tower that takes
    patches in an order of its own has each cell, ``None`` if it has none. Where the first tile shows the whole picture,
    the others cut it into ``cut`` rows and columns.
    """

    cell_N: Tensor
    tiles: int
    grid: tuple[int, int]
    place_U: Tensor | None = None
    cut: tuple[int, int] = (1, 1)

    @property
    def cells(self) -> int:
        """U, the cells of all tiles."""
        return self.tiles * self.grid[0] * self.grid[1]
