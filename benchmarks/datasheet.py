"""What the embedded benchmark holds, counted over the first scenes of a split: the tables of docs/results/datasheet.md.

Example: python benchmarks/datasheet.py
"""

import argparse
from collections import Counter, defaultdict

import numpy as np

from clasp_calib.reference.benchmark import scene_questions, split_scene
from clasp_calib.reference.families import HELD_OUT, INTENT, TRAIN
from clasp_calib.reference.questions import DIFFICULTIES, Question
from clasp_calib.reference.scenes import Scene
from tools.reference.supervision import CLUTTER, KIND, patch_labels

SPLITS = ("test", "challenge")
PARTS = ("person", "sign", "plate", "arrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    count = parser.parse_args().scenes
    scenes = {split: [split_scene(split, number) for number in range(count)] for split in SPLITS}
    print("| a picture holds | " + " | ".join(SPLITS) + " |\n|---|" + "---:|" * len(SPLITS))
    rows = [contents(of) for of in scenes.values()]
    for name in rows[0]:
        print(f"| {name} | " + " | ".join(row[name] for row in rows) + " |")
    asked = [question for scene in scenes["test"] for question in scene_questions(scene)]
    families(asked)
    classes(asked)


def contents(scenes: list[Scene]) -> dict[str, str]:
    kinds = [patch_labels(scene)[:, KIND] for scene in scenes]
    numbers = {
        "things": [len(scene.things) for scene in scenes],
        "different kinds of thing": [len({thing.kind for thing in scene.things}) for scene in scenes],
        "pieces of clutter": [len(scene.clutter) for scene in scenes],
        "patches that show something": [int((of > 0).sum()) for of in kinds],
        "the same without clutter": [int(((of > 0) & (of != CLUTTER)).sum()) for of in kinds],
    }
    rows = {name: f"{np.mean(of):.1f} ({min(of)} to {max(of)})" for name, of in numbers.items()}
    for part in PARTS:
        rows[part] = f"{np.mean([getattr(scene, part) is not None for scene in scenes]):.0%}"
    return rows


def families(asked: list[Question]) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in asked:
        answers[question.family][question.answer] += 1
    print("\n| class | family | wordings | held out | asked | answers | most frequent |")
    print("|---|---|---:|---:|---:|---:|---|")
    of_class: Counter[str] = Counter(question.label for question in asked)
    for family, (_, label) in INTENT.items():
        found = answers[family]
        ((most, times),) = found.most_common(1)
        print(
            f"| {label} | `{family}` | {len(set(TRAIN[family]))} | {len(HELD_OUT[family])} "
            f"| {found.total() / of_class[label]:.0%} | {len(found)} | {most} ({times / found.total():.0%}) |"
        )


def classes(asked: list[Question]) -> None:
    by_class: dict[str, list[Question]] = defaultdict(list)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in asked:
        by_class[question.label].append(question)
        answers[question.family][question.answer] += 1
    print("\n| class | questions | " + " | ".join(DIFFICULTIES) + " | guessed |\n|---|" + "---:|" * 5)
    for label in dict.fromkeys(label for _, label in INTENT.values()):
        of = by_class[label]
        shares = [sum(q.difficulty == difficulty for q in of) / len(of) for difficulty in DIFFICULTIES]
        guessed = sum(max(answers[f].values()) for f, (_, where) in INTENT.items() if where == label)
        cells = " | ".join(f"{share:.0%}" for share in (*shares, guessed / len(of)))
        print(f"| {label} | {len(of)} | {cells} |")


if __name__ == "__main__":
    main()
