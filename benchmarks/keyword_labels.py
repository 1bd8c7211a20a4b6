"""How well the packaged keyword rules label the 540 hand-labelled questions, and how fast.

Example: python benchmarks/keyword_labels.py
"""

import json
import time
from collections import Counter
from pathlib import Path

from clasp_calib.router_labeling.labelers import KeywordLabeler, load_scheme

GOLD = Path(__file__).parents[1] / "tests" / "router_labeling" / "intents_gold.jsonl"


def main() -> None:
    rows = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()]
    scheme = load_scheme()
    taxonomy = scheme.taxonomy
    begun = time.process_time()
    asked = KeywordLabeler().ask([row["question"] for row in rows], scheme)
    guessed = [taxonomy.class_of(guess.intent) for _, guess in asked]
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
