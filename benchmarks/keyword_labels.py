"""How well the packaged keyword rules label the 540 hand-labelled questions, and how fast.

Example: python benchmarks/keyword_labels.py
"""

import json
import time
from collections import Counter
from pathlib import Path

from clasp_calib.router_labeling.labelers import KeywordLabeler
from clasp_calib.router_labeling.rules import load_rules
from clasp_calib.router_labeling.taxonomy import load_taxonomy

GOLD = Path(__file__).parents[1] / "tests" / "router_labeling" / "intents_gold.jsonl"


def main() -> None:
    rows = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()]
    taxonomy = load_taxonomy()
    labeler = KeywordLabeler(load_rules(None, taxonomy), taxonomy)
    begun = time.process_time()
    guessed = [taxonomy.class_of(guess.intent) for guess in labeler.label([row["question"] for row in rows])]
    seconds = time.process_time() - begun
    pairs = Counter((row["class"], guess) for row, guess in zip(rows, guessed, strict=True))
    totals = Counter(row["class"] for row in rows)
    recalls = {name: pairs[name, name] / totals[name] for name in taxonomy.classes}
    print(f"| labelled by hand | {' | '.join(taxonomy.classes)} | right |")
    print(f"|---|{'---:|' * (len(taxonomy.classes) + 1)}")
    for name in taxonomy.classes:
        cells = " | ".join(str(pairs[name, guess]) for guess in taxonomy.classes)
        print(f"| {name} | {cells} | {recalls[name]:.0%} |")
    macro = sum(recalls.values()) / len(recalls)
    print(f"\nmacro accuracy {macro:.3f}, {len(rows) / seconds:.0f} questions/s on one core")


if __name__ == "__main__":
    main()
