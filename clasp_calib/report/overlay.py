"""Kept visual tokens drawn over their picture: blue for relevance, red for coverage, one panel a stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

PIVOT, MEDOID = (40, 90, 255), (230, 40, 40)
PANEL, MARGIN, CAPTION = 448, 8, 20
_OPACITY, _SHADE = 0.45, 0.35


@dataclass(frozen=True)
class Panel:
    """One stage: a line of text, and which tokens of the grid it kept and why, counted row by row."""

    caption: str
    pivots: Sequence[int]
    medoids: Sequence[int]


def draw_overlay(picture: Image.Image, grid: tuple[int, int], panels: Sequence[Panel], path: Path) -> None:
    """Write the panels side by side, in the format that the path's suffix names.

    Args:
        picture: what the tower saw, or the picture that was resized for it; stretched to the grid.
        grid: rows and columns of its visual tokens.
        panels: the stages.
        path: where to write; folders are made.
    """
    rows, columns = grid
    cell = max(1, PANEL // max(rows, columns))
    width, height = columns * cell, rows * cell
    base = picture.convert("RGB").resize((width, height))
    dark = Image.blend(Image.new("RGB", base.size), base, _SHADE)
    sheet = Image.new("RGB", (len(panels) * (width + MARGIN) + MARGIN, height + CAPTION + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        image = dark.copy()
        for tokens, colour in ((panel.medoids, MEDOID), (panel.pivots, PIVOT)):
            for token in tokens:
                box = _box(token, columns, cell)
                patch = base.crop(box)
                image.paste(Image.blend(patch, Image.new("RGB", patch.size, colour), _OPACITY), box)
        left = MARGIN + number * (width + MARGIN)
        sheet.paste(image, (left, MARGIN))
        pen.text((left, height + 2 * MARGIN), panel.caption, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _box(token: int, columns: int, cell: int) -> tuple[int, int, int, int]:
    row, column = divmod(token, columns)
    return column * cell, row * cell, (column + 1) * cell, (row + 1) * cell
