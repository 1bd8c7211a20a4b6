"""The benchmark: splits of scenes by seed, as a sample table with pictures.

``python -m clasp_calib.reference.benchmark DIR`` writes one: ``samples.parquet`` or ``samples.jsonl`` with the columns
of every sample table, ``images/`` as PNG, and ``contact-sheet.png`` to look at.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, ImageOps

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import track
from clasp_calib.common.sample_table import write_table
from clasp_calib.common.scripts import ended
from clasp_calib.reference.families import HELD_OUT
from clasp_calib.reference.questions import Question, draw_family, questions_about
from clasp_calib.reference.scenes import CHALLENGE, ORDINARY, Scene, draw_scene
from clasp_calib.reference.vocabulary import IMAGE_SIZE, SQUARE

VERSION = "2"
FIRST_SEED = {
    "train": 0,
    "calibration": 10_000_000,
    "selection": 20_000_000,
    "test": 30_000_000,
    "challenge": 40_000_000,
}
"""Seeds of a split's scenes start here; the splits never meet."""
PICTURES = {"calibration": 40, "selection": 24, "test": 60}
"""Pictures of each split in the default benchmark."""
FORMATS = ("parquet", "jsonl")
_NAMES = ("id", "image", "question", "answers", "metric", "split", "gold_intent", "gold_class", "family", "difficulty")
_COLUMNS = pa.schema([(name, pa.list_(pa.string()) if name == "answers" else pa.string()) for name in _NAMES])


def split_scene(split: str, number: int, sizes: Sequence[tuple[int, int]] = (SQUARE,)) -> Scene:
    """A split's scene of this number; those of ``challenge`` are fuller and smaller written than in training.

    Args:
        split: name of the split.
        number: of the scene.
        sizes: widths and heights, in pixels; the scene has one of them, drawn by its seed.
    """
    seed = FIRST_SEED[split] + number
    size = random.Random(f"size-{seed}").choice(sizes)
    return draw_scene(seed, CHALLENGE if split == "challenge" else ORDINARY, size)


def scene_questions(scene: Scene) -> list[Question]:
    """One question of each class that the scene can answer, drawn by the scene's seed, in wordings held out."""
    rng = random.Random(f"questions-{scene.seed}")
    by_class: dict[str, dict[str, list[Question]]] = {}
    for question in questions_about(scene, rng, HELD_OUT):
        by_class.setdefault(question.label, {}).setdefault(question.family, []).append(question)
    return [rng.choice(of[draw_family(list(of), rng)]) for of in by_class.values()]


def write_benchmark(
    out: Path,
    pictures: Mapping[str, int] | None = None,
    file_format: str = "parquet",
    first: int = 0,
    sizes: Sequence[tuple[int, int]] = (SQUARE,),
) -> Path:
    """Draw the benchmark and return the path of its table.

    The gold intent is kept in columns of its own, so that labelling is a task and not a copy.

    Args:
        out: directory to write to.
        pictures: split -> number of pictures; `PICTURES` if ``None``.
        file_format: ``parquet`` or ``jsonl``.
        first: number of each split's first picture; others than 0 give other pictures.
        sizes: widths and heights of pictures, in pixels; a picture has one of them, drawn by its seed.

    Raises:
        InputError: the directory cannot be written to, or an unknown format or split.
    """
    pictures = PICTURES if pictures is None else pictures
    if file_format not in FORMATS or not set(pictures) <= set(FIRST_SEED):
        raise InputError(
            f"cannot write splits {sorted(pictures)} as {file_format!r}; "
            f"expected splits of {', '.join(FIRST_SEED)} and one of {', '.join(FORMATS)}"
        )
    numbers = [(split, first + number) for split, of in pictures.items() for number in range(of)]
    scenes = [(split, split_scene(split, number, sizes)) for split, number in numbers]
    rows = []
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        for split, scene in track(scenes, "drawing pictures", len(scenes)):
            name = f"images/{scene.seed:08d}.png"
            scene.picture().save(out / name)
            rows += [_row(split, scene, name, question) for question in scene_questions(scene)]
        contact_sheet([scene for _, scene in scenes[:24]]).save(out / "contact-sheet.png")
        path = out / f"samples.{file_format}"
        if file_format == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            write_table(pa.Table.from_pylist(rows, _COLUMNS), path)
    except OSError as error:
        raise InputError(f"cannot write the benchmark to {out} ({error}); give another place") from error
    return path


def contact_sheet(scenes: list[Scene], columns: int = 6) -> Image.Image:
    """Pictures side by side, in half size if they are of the usual one."""
    side = IMAGE_SIZE // 2
    lines = -(-len(scenes) // columns)
    sheet = Image.new("RGB", (side * columns, side * max(lines, 1)), "white")
    for number, scene in enumerate(scenes):
        small = ImageOps.contain(scene.picture(), (side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (number % columns * side, number // columns * side))
    return sheet


def _row(split: str, scene: Scene, image: str, question: Question) -> dict[str, Any]:
    return {
        "id": f"{split}-{scene.seed}-{question.label}",
        "image": image,
        "question": question.text,
        "answers": [question.answer],
        "metric": "exact",
        "split": split,
        "gold_intent": question.intent,
        "gold_class": question.label,
        "family": question.family,
        "difficulty": question.difficulty,
    }


def main() -> None:
    """Parse the command line and write the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--format", choices=FORMATS, default="parquet", dest="file_format")
    for split in FIRST_SEED:
        count = PICTURES.get(split, 0)
        parser.add_argument(f"--{split}", type=int, default=count, help=f"pictures (default {count})")
    arguments = parser.parse_args()
    pictures = {split: getattr(arguments, split) for split in FIRST_SEED}
    print(write_benchmark(arguments.out, pictures, arguments.file_format))


if __name__ == "__main__":
    sys.exit(ended(main))
