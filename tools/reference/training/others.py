"""What a training takes over from another one's work directory: its tower, or all that it was finished with.

Each way has two steps: a recipe that says what is taken over, and, once the work directory is the training's own, the
files that are taken.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from clasp_calib.common.errors import InputError
from clasp_calib.common.hashing import sha256_file
from tools.reference.training.recipe import Recipe
from tools.reference.training.stages import START, TOKENIZER, TOWER_FILES

TOWER = {name: name for name in TOWER_FILES}
"""Files of a tower and its features: there, and here."""
FINISHED = {"joint.pt": f"{START}.pt"} | {name: name for name in ("tower.pt", TOKENIZER, "log.jsonl")}
"""Files of a finished training that another one goes on with: there, and here."""


def with_tower_of(recipe: Recipe, other: Path) -> Recipe:
    """The recipe with the tower of another training; take `TOWER` for it.

    Raises:
        InputError: the other has no finished tower and features, or they were made by other numbers.
    """
    theirs = _recipe_of(other, TOWER_FILES, "train there first, without --tower-of")
    for name in ("scenes", "pictures", "validation", "tower_steps"):
        if theirs[name] != getattr(recipe, name):
            raise InputError(
                f"{other} was trained with {theirs[name]} {name}, not {getattr(recipe, name)}; give another"
            )
    return replace(recipe, tower_seed=theirs["tower_seed"])


def going_on_with(recipe: Recipe, other: Path) -> Recipe:
    """The recipe whose joint stage starts where another training ended; take `FINISHED` for it.

    Raises:
        InputError: the other is not finished, damaged, or went on with a third one itself.
    """
    if (other / "late.pt").exists():
        raise InputError(f"{other} went on with another training itself; give that one")
    theirs = _recipe_of(other, tuple(FINISHED), "train there first")
    try:
        ended_at = torch.load(other / "joint.pt", weights_only=True, map_location="cpu")["step"]
    except (RuntimeError, EOFError, UnpicklingError, KeyError, TypeError) as error:
        raise InputError(f"{other / 'joint.pt'} is damaged ({error}); remove it, and train there again") from error
    if ended_at != theirs["joint_steps"]:
        raise InputError(f"{other} has {ended_at} of {theirs['joint_steps']} joint steps; let it end first")
    kept = {name: theirs[name] for name in ("tower_seed", "size", "tower_steps")}
    return replace(recipe, start=sha256_file(other / "joint.pt")[:12], **kept)


def take(files: Mapping[str, str], other: Path, work: Path) -> None:
    """Copy files of another work directory, but for those that are here already.

    Args:
        files: `TOWER` or `FINISHED`.
        other: has them all.
        work: gets them.
    """
    for theirs, ours in files.items():
        if not (work / ours).exists():
            part = work / f"{ours}.part"
            shutil.copy(other / theirs, part)
            part.rename(work / ours)


def _recipe_of(other: Path, files: tuple[str, ...], advice: str) -> dict[str, Any]:
    for name in (*files, "recipe.json"):
        if not (other / name).exists():
            raise InputError(f"{other} has no {name}; {advice}")
    try:
        theirs = Recipe(**json.loads((other / "recipe.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{other / 'recipe.json'} is not this version's ({error}); train there again") from error
    return vars(theirs)
