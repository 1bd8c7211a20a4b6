"""The shape of the sibling's tower, and the sizes of its pictures.

A grid is the rows and columns of a picture's patches.
"""

from typing import Any

from clasp_calib.reference.vocabulary import GRID, PATCH
from tools.reference.shape import DEFAULT, VISION_WIDTH

Grid = tuple[int, int]
TRAINED: tuple[Grid, ...] = ((24, 24), (18, 30), (20, 28), (28, 20), (30, 18), (16, 24), (24, 16))
"""Grids of training."""
DEPTH = 6
"""Blocks of the tower; the last one's states are projected."""
HEADS = 4


def pixels(grid: Grid) -> tuple[int, int]:
    """Width and height of a picture with this grid."""
    return grid[1] * PATCH, grid[0] * PATCH


def vision_config() -> Any:
    """Six blocks of width 160, every patch a token of its own, positions learned for 24 x 24 and interpolated."""
    from transformers import Qwen3VLVisionConfig

    return Qwen3VLVisionConfig(
        depth=DEPTH,
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_heads=HEADS,
        patch_size=PATCH,
        spatial_merge_size=1,
        temporal_patch_size=1,
        out_hidden_size=DEFAULT.width,
        num_position_embeddings=GRID * GRID,
        deepstack_visual_indexes=[],
    )
