"""What can be answered without looking: the most frequent answer to each question among training scenes."""

import random
from collections import Counter, defaultdict

from clasp_calib.reference.benchmark import FIRST_SEED, scene_questions
from clasp_calib.reference.questions import questions_about
from clasp_calib.reference.scenes import draw_scene


def prior_accuracy(split: str, pictures: int, training: int = 20_000) -> dict[str, float]:
    """Accuracy by gold class, and ``macro``, of guessing each question's most frequent answer.

    A question that training never asked is answered with its family's most frequent answer.

    Args:
        split: of the benchmark.
        pictures: how many of the split's pictures, as `write_benchmark` draws them.
        training: how many training scenes are counted.
    """
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    by_family: dict[str, Counter[str]] = defaultdict(Counter)
    rng = random.Random(0)
    for number in range(training):
        for question in questions_about(draw_scene(FIRST_SEED["train"] + number), rng):
            by_text[question.text][question.answer] += 1
            by_family[question.family][question.answer] += 1
    hits: dict[str, list[bool]] = defaultdict(list)
    for number in range(pictures):
        for question in scene_questions(draw_scene(FIRST_SEED[split] + number)):
            counts = by_text.get(question.text) or by_family[question.family]
            hits[question.label].append(counts.most_common(1)[0][0] == question.answer)
    accuracy = {label: sum(of) / len(of) for label, of in hits.items()}
    return {**accuracy, "macro": sum(accuracy.values()) / len(accuracy)}
