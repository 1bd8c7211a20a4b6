"""What the README and the walkthrough suppose that the reader has: a model, questions and pictures."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from clasp_calib.reference.scenes import draw_scene

sys.path.insert(0, str(Path(__file__).parents[1]))
from speaking_models import speaking_llava_directory


def own_model(place: Path) -> Path:
    """Save a random and tiny model of short answers, with the 16 decoder layers that three stages need and 256 visual
    tokens, so that a budget of 192 prunes."""
    return speaking_llava_directory(place, decoder_layers=16, image_size=224)


def lay_out(place: Path, samples: Sequence[str]) -> None:
    """Put into ``place`` what the pages call ``my-llava``, ``samples.jsonl`` and ``pictures/``.

    The questions are the ones that a page shows.
    """
    own_model(place / "my-llava")
    (place / "samples.jsonl").write_text("\n".join(samples) + "\n", encoding="utf-8")
    (place / "pictures").mkdir()
    for seed, image in enumerate(dict.fromkeys(json.loads(line)["image"] for line in samples)):
        draw_scene(seed).picture().save(place / image)
