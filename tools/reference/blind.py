"""What can be answered without looking: a classifier of answers that was trained on the questions' words alone.

Words, pairs of neighbouring words, and how a question begins and ends are embedded, averaged, and mapped to answers by
a softmax. It sees what the model sees of a question and nothing else: no family, no class, no picture. Forms of
question that training never used are met by their words.

n questions, D width of the embedding, A answers.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clasp_calib.common.samples import Sample
from clasp_calib.reference.benchmark import scene_questions, split_scene
from clasp_calib.reference.questions import Question, draw_family, questions_about

SCENES = 8000
"""Training scenes that the baseline reads about."""
PER_CLASS = 4
"""Questions of a class that are kept of one scene, so that classes weigh about as much as they do in the benchmark."""
WIDTH = 96
EPOCHS = 6
BATCH = 512
RATE = 5e-3
SEEN = 3
"""Features that occur less often are left out: they would be learned by heart."""
DROPPED = 0.15
"""Share of a question's features that a training step hides, so that no answer hangs on one form of question."""


def features(question: str) -> list[str]:
    """Features of a question's text, lower case, without punctuation; plurals count as their singular too."""
    words = re.findall(r"[a-z]+|\d+", question.lower().replace("'s", " "))
    if not words:
        return []
    stems = [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words]
    pairs = [f"{a} {b}" for a, b in zip(["^", *stems], [*stems, "$"], strict=True)]
    ends = [f"^{' '.join(stems[:2])}", f"^{' '.join(stems[:3])}", f"{' '.join(stems[-2:])}$", f"{stems[-1]}$"]
    exact = [f"={word}" for word, stem in zip(words, stems, strict=True) if word != stem]
    return list(dict.fromkeys([*stems, *pairs, *ends, *exact]))


class _Network(nn.Module):
    """Mean of embedded features, then a softmax over answers; both start small."""

    def __init__(self, features: int, answers: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(features, WIDTH, mode="mean")
        self.answer = nn.Linear(WIDTH, answers)

    def forward(self, index: Tensor, offset_n: Tensor) -> Tensor:
        """Logits [n, A] of questions whose features stand one after the other in ``index``."""
        logits: Tensor = self.answer(self.embedding(index, offset_n))
        return logits


@dataclass(frozen=True)
class BlindGuesser:
    """A trained question-only classifier."""

    network: _Network
    features: dict[str, int]
    answers: tuple[str, ...]

    @torch.inference_mode()
    def guesses(self, questions: Sequence[str]) -> list[str]:
        """The most likely answer to each question."""
        known = [_indices(self.features, question) for question in questions]
        return [self.answers[i] for i in self.network(*_packed(known)).argmax(-1).tolist()] if known else []


def training_questions(scenes: int, seed: int = 0) -> list[Question]:
    """Questions about the first training scenes, at most `PER_CLASS` of a class for each, drawn as the benchmark's."""
    rng = random.Random(f"blind-{seed}")
    chosen: list[Question] = []
    for number in range(scenes):
        by_class: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
        for question in questions_about(split_scene("train", number), rng):
            by_class[question.label][question.family].append(question)
        for of in by_class.values():
            families = [draw_family(list(of), rng) for _ in range(PER_CLASS)]
            chosen += dict.fromkeys(rng.choice(of[family]) for family in families)
    return chosen


def train_blind(questions: Sequence[tuple[str, str]], seed: int = 0, epochs: int = EPOCHS) -> BlindGuesser:
    """Train on pairs of question and answer; the same pairs and seed give the same guesser.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError("no questions to learn from; expected at least one pair of question and answer")
    found = {text: features(text) for text, _ in questions}
    times = Counter(feature for text, _ in questions for feature in found[text])
    known = {feature: place for place, feature in enumerate(["", *(f for f, n in times.items() if n >= SEEN)])}
    answers = tuple(dict.fromkeys(answer for _, answer in questions))
    number = {answer: place for place, answer in enumerate(answers)}
    target_n = torch.tensor([number[answer] for _, answer in questions])
    indices = {text: _indices(known, text) for text in found}
    rng = random.Random(f"blind-{seed}-training")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(len(known), len(answers))
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps = epochs * -(-len(questions) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for _ in range(epochs):
        order = list(range(len(questions)))
        rng.shuffle(order)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            rows = [_thinned(indices[questions[i][0]], rng) for i in batch]
            loss = functional.cross_entropy(network(*_packed(rows)), target_n[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return BlindGuesser(network.eval(), known, answers)


@lru_cache(maxsize=1)
def blind_guesser(scenes: int = SCENES, seed: int = 0) -> BlindGuesser:
    """The baseline of the committed tables; under a minute on one core, once a process."""
    return train_blind([(q.text, q.answer) for q in training_questions(scenes, seed)], seed)


def blind_hits(samples: Sequence[Sample], guesser: BlindGuesser | None = None) -> list[bool]:
    """Whether the guess about each sample is one of its answers.

    Args:
        samples: of any split.
        guesser: `blind_guesser` if ``None``.
    """
    guesses = (guesser or blind_guesser()).guesses([sample.question for sample in samples])
    return [guess in sample.answers for guess, sample in zip(guesses, samples, strict=True)]


def blind_accuracy(split: str, pictures: int, guesser: BlindGuesser | None = None) -> dict[str, float]:
    """Accuracy by gold class, and ``macro``, of guessing without looking.

    Args:
        split: of the benchmark.
        pictures: how many of the split's pictures, as `clasp_calib.reference.benchmark.write_benchmark` draws them.
        guesser: `blind_guesser` if ``None``.
    """
    asked = [q for number in range(pictures) for q in scene_questions(split_scene(split, number))]
    hits = blind_hits([Sample(str(i), q.text, answers=(q.answer,)) for i, q in enumerate(asked)], guesser)
    by_class: dict[str, list[bool]] = defaultdict(list)
    for question, hit in zip(asked, hits, strict=True):
        by_class[question.label].append(hit)
    accuracy = {label: sum(of) / len(of) for label, of in by_class.items()}
    return {**accuracy, "macro": sum(accuracy.values()) / len(accuracy)}


def _indices(known: dict[str, int], question: str) -> list[int]:
    """Indices of a question's known features; 0 stands for none at all."""
    return [known[feature] for feature in features(question) if feature in known] or [0]


def _thinned(indices: Sequence[int], rng: random.Random) -> list[int]:
    return [i for i in indices if rng.random() >= DROPPED] or [0]


def _packed(rows: Sequence[Sequence[int]]) -> Any:
    lengths = torch.tensor([len(row) for row in rows])
    return torch.tensor([i for row in rows for i in row]), lengths.cumsum(0) - lengths
