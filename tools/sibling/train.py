"""Train the sibling from nothing but the embedded model, deterministically by seed, on one CPU core.

    python -m tools.sibling.train --recipe tiny --work my-training --out my-weights.safetensors

tries every stage with a few steps. The stages: the vision tower on dense patch labels of pictures of many sizes; its
features; the merger, by regression onto the tokens of the embedded model's projector; merger and decoder together,
where the decoder starts as the embedded model's. What takes long is kept in the work directory and not made again; the
last stage goes on from its last checkpoint.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from clasp_calib.common.scripts import ended
from tools.sibling.model import WEIGHTS, keep
from tools.sibling.recipe import RECIPES
from tools.sibling.stages import Training


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.sibling.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path(".sibling-training"), help="where the stages are kept (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="file of the weights (default: the sibling's)")
    parser.add_argument("--recipe", choices=RECIPES, default="full", help="how much of everything (default full)")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another model (default 0)")
    given = parser.parse_args()
    torch.set_num_threads(1)  # Sums over threads come in no fixed order.
    keep(*Training(replace(RECIPES[given.recipe], seed=given.seed), given.work).joined, given.out)
    print(given.out)


if __name__ == "__main__":
    sys.exit(ended(main))
