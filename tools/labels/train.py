"""Train the packaged labeler: the head on a sentence embedding, from questions with intents and from templates.

No question of the report, nor a near-duplicate of one, is trained on. Takes some minutes of one core.

Example: python -m tools.labels.train
"""

import json
import random
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from clasp_calib.router_labeling.duplicates import duplicate_groups
from clasp_calib.router_labeling.embedders import MiniLM
from clasp_calib.router_labeling.head_training import Intended, train_head
from clasp_calib.router_labeling.intent_head import write_head
from clasp_calib.router_labeling.labelers import load_scheme
from tools.labels.templates import read_templates

ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT / "tests" / "router_labeling"
TUNING, REPORT = ("intents_gold.jsonl", "intents_tuning.jsonl"), "intents_report.jsonl"
POOL = Path(__file__).parent / "pool"
HEAD = ROOT / "clasp_calib" / "router_labeling" / "assets" / "intent-head.safetensors"
DRAWS, SEED = 8, 7
"""Questions of each template."""
POOL_WEIGHT = 3.0
"""All questions from templates weigh three times as much as all others: on held-out tuning questions 1 and 10 were
within a point."""
RULES_WEIGHT = 0.2
"""Found on tuning questions that the rules of that time had not been made on; today's rules were made on them too."""


def main() -> None:
    """Train and write it."""
    rows = [row for name in TUNING for row in read_questions(name)]
    reported = [row.question for row in read_questions(REPORT)]
    rows, pool = apart(rows, reported), apart(pool_questions(DRAWS, SEED), reported)
    head = train_head(rows, load_scheme(), MiniLM(), pool=pool, pool_weight=POOL_WEIGHT, rules_weight=RULES_WEIGHT)
    write_head(head, HEAD)
    print(
        f"{len(rows)} questions, {len(pool)} from templates; temperature {head.temperature}, rules {head.rules_weight}"
    )
    print(head.quality)


def read_questions(name: str) -> list[Intended]:
    """Those of a file beside the tests."""
    rows = [json.loads(line) for line in (QUESTIONS / name).read_text(encoding="utf-8").splitlines()]
    return [Intended(row["question"], row["intent"]) for row in rows]


def pool_questions(draws: int, seed: int) -> list[Intended]:
    """Different questions drawn from all templates."""
    words = yaml.safe_load((POOL / "vocabulary.yaml").read_text(encoding="utf-8"))
    templates = [template for path in sorted(POOL.glob("*.txt")) for template in read_templates(path)]
    rng, found = random.Random(seed), dict[str, Intended]()
    for template in templates:
        for _ in range(draws):
            question = template.draw(words, rng)
            found.setdefault(question.casefold(), Intended(question, template.intent))
    return list(found.values())


def apart(rows: list[Intended], others: list[str]) -> list[Intended]:
    """Those that are no near-duplicates of others."""
    near = near_duplicates([row.question for row in rows], others)
    return [row for row, taken in zip(rows, near, strict=True) if not taken]


def near_duplicates(questions: list[str], others: list[str]) -> NDArray[np.bool_]:
    """``[questions]``: which are near-duplicates of others, or of what is near these, and so on."""
    groups = np.array(duplicate_groups([*others, *questions]))
    found: NDArray[np.bool_] = np.isin(groups[len(others) :], groups[: len(others)])
    return found


if __name__ == "__main__":
    main()
