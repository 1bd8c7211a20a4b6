"""Make the reference model from nothing, deterministically by seed.

    python -m tools.reference.train --recipe tiny --work my-training --out my-reference

tries every stage with three steps. The stages: a tokenizer; the vision tower on dense patch labels; the tower's
features of all pictures; the decoder on oracle tokens; the projector by regression; projector and decoder together;
the export to a directory that transformers loads. What takes long is kept in the work directory and not made again;
the two decoder stages go on from their last checkpoint when they were interrupted, with the result of an uninterrupted
run.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from clasp_calib.common.errors import InputError
from clasp_calib.common.scripts import ended
from clasp_calib.reference.model import MODEL
from tools.reference.training.others import FINISHED, TOWER, going_on_with, take, with_tower_of
from tools.reference.training.recipe import RECIPES, SAYS, SIZES
from tools.reference.training.stages import STAGES, Training


def _repeatable(device: str) -> None:
    """Sums over threads come in no fixed order, and neither do some of a GPU's."""
    torch.set_num_threads(1)
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _parser() -> argparse.ArgumentParser:
    recipes = "\n".join(f"  {name:<7}{SAYS[name]}" for name in RECIPES)
    parser = argparse.ArgumentParser(
        prog="python -m tools.reference.train",
        description=__doc__,
        epilog=f"recipes:\n{recipes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--work", type=Path, default=Path(".training"), help="where the stages are kept (default .training)"
    )
    parser.add_argument("--out", type=Path, help="where the model is written (default: the embedded one's place)")
    parser.add_argument("--recipe", choices=RECIPES, default="full", help="how much of everything; see below")
    parser.add_argument("--size", choices=SIZES, help="of the decoder (default: default); large is twice as wide")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another model (default 0)")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--tower-of", type=Path, metavar="DIR", help="work directory whose tower is kept; only the decoder is trained"
    )
    other.add_argument(
        "--start-from", type=Path, metavar="DIR", help="finished work directory whose joint stage is gone on with"
    )
    parser.add_argument("--until", choices=STAGES, help="stop after a stage; a later run goes on")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu uses one thread (default cpu)")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pictures and questions (default 0)")
    return parser


def main() -> None:
    """Parse the command line and train."""
    given = _parser().parse_args()
    if given.recipe == "late" and not given.start_from:
        raise InputError("the recipe late goes on with another training; give its work directory as --start-from")
    if given.start_from and given.until not in (None, STAGES[-1]):
        raise InputError(f"a training with --start-from has no stage {given.until}; leave out --until {given.until}")
    if given.workers < 0:
        raise InputError(f"cannot start {given.workers} workers; give 0 or more")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no GPU for --device cuda; give cpu, or install a torch with CUDA")
    _repeatable(given.device)
    recipe = replace(RECIPES[given.recipe], seed=given.seed, tower_seed=given.seed, size=given.size or "default")
    if given.start_from:
        recipe = going_on_with(recipe, given.start_from)
        if given.size not in (None, recipe.size):
            raise InputError(f"{given.start_from} holds a decoder of size {recipe.size}; leave out --size {given.size}")
    if recipe.size != "default" and not (given.out or given.until):
        raise InputError("the embedded model has the default size; give --out")
    if given.tower_of:
        recipe = with_tower_of(recipe, given.tower_of)
    training = Training(recipe, given.work, given.device, given.workers)
    if given.tower_of:
        take(TOWER, given.tower_of, given.work)
    elif given.start_from:
        take(FINISHED, given.start_from, given.work)
    if given.until:
        training.until(given.until)
    else:
        training.run(given.out or MODEL)


if __name__ == "__main__":
    sys.exit(ended(main))
