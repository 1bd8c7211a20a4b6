"""Train the packaged router: what a labeler by sentence embedding says of many questions, learnt by a small model.

The pool are questions drawn from templates, questions that were written and have no labels, and noised ones of both.
For each of five folds of the hand-labelled questions, teacher and router are trained without the fold and without what
is near a question of it; the temperature comes from what these routers say of their folds, and they alone are judged.
No near-duplicate of a reported question is trained on. Takes about a quarter of an hour of one core.

Example: python -m tools.labels.router
"""

import argparse
import random
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from clasp_calib.common.hashing import sha256_json
from clasp_calib.router_labeling.abstention import NOWHERE, best_temperature, calibration_error
from clasp_calib.router_labeling.duplicates import duplicate_groups
from clasp_calib.router_labeling.embedders import MiniLM
from clasp_calib.router_labeling.head_training import Intended
from clasp_calib.router_labeling.labelers import load_scheme
from clasp_calib.router_labeling.ngrams import Hashing
from clasp_calib.router_labeling.router import Router, RouterQuality, RouterTraining, softmax
from clasp_calib.router_labeling.router_file import write_router
from clasp_calib.router_labeling.taxonomy import packaged
from clasp_calib.router_labeling.training import feature_matrix, fit, folds
from clasp_calib.router_labeling.worth import judged
from tools.labels.noise import COMMON, content_words, neighbours, noised
from tools.labels.piece_vectors import meanings, reduced
from tools.labels.student import Lesson, train_network, train_ngrams
from tools.labels.train import (
    POOL_WEIGHT,
    REPORT,
    ROOT,
    TUNING,
    apart,
    near_duplicates,
    pool_questions,
    read_questions,
)

ROUTER = ROOT / "clasp_calib" / "router_labeling" / "assets" / "router.safetensors"
WRITTEN_QUESTIONS = Path(__file__).parent / "written.txt"
DRAWS, SEED = 25, 7
"""Questions of each template."""
TEMPLATES_TAUGHT = 20_000
"""Of the questions from templates, so many teach the teacher; the student hears its opinion of all."""
NOISED_HAND, NOISED_WRITTEN, NOISED_TEMPLATES = 8, 3, 10_000
"""Noised questions for each that was labelled by hand, for each written one, and of all templates together."""
HAND_SHARE, HAND_TRUTH, TEMPLATE_TRUTH, WRITTEN_SHARE = 12.0, 0.7, 0.5, 2.0
"""What a question labelled by hand and a written one weigh against one from a template, and how much of a target is
the intent that is known, against the teacher's opinion."""
HASHING = Hashing(16, (1, 2, 3), (3, 4, 5))
THRESHOLD = 0.0
"""It names the likeliest class, however unsure. On the embedded benchmark at 64 tokens, classes at random cost 4 points
of macro and the default class for everything 5 (docs/guide/router.md). So abstaining would gain nothing."""
HAND, TEMPLATE, WRITTEN, NOISED = range(4)


@dataclass(frozen=True)
class Pool:
    """All questions, with what is known of them; arrays ``[questions]``."""

    questions: list[str]
    kinds: NDArray[np.int64]
    """`HAND`, `TEMPLATE`, `WRITTEN` or `NOISED`."""
    intents: NDArray[np.int64]
    """Places of intents; -1 if it is not known."""
    groups: NDArray[np.int64]
    """Of near-duplicates; a noised question is in the group of what it was made of."""


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROUTER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, taxonomy = MiniLM(), load_scheme().taxonomy
    of_pieces = meanings(model)
    pool = gathered(list(taxonomy.intents), of_pieces)
    embeddings = model.embed(pool.questions).astype(np.float16)
    classes = np.array([taxonomy.classes.index(taxonomy.class_of(intent)) for intent in taxonomy.intents])
    trainer = Trainer(pool, embeddings, classes, *reduced(of_pieces))
    hand = np.flatnonzero(pool.kinds == HAND)
    truth = classes[pool.intents[hand]]
    held_out = np.zeros((len(hand), len(taxonomy.classes)))
    for number, (_, left_out) in enumerate(folds(pool.intents[hand], pool.groups[hand], 0)):
        known = ~np.isin(pool.groups, pool.groups[hand[left_out]])
        # Noise may have made one look like another question than its own.
        known &= ~near_duplicates(pool.questions, [pool.questions[place] for place in hand[left_out]])
        router = trainer.router(known, number)
        held_out[left_out] = [router.logits(pool.questions[place]) for place in hand[left_out]]
        print(f"fold {number}: {_macro(held_out[left_out].argmax(1), truth[left_out]):.3f}", flush=True)
    temperature = best_temperature(held_out, truth)
    likeliest = held_out.argmax(1)
    found = judged(likeliest, likeliest, truth, NOWHERE)
    sure = calibration_error(softmax(held_out, temperature), truth)
    print(f"temperature {temperature:.3f}, calibration error {sure:.3f}, {found}")
    router = replace(
        trainer.router(np.ones(len(pool.questions), bool), len(truth)),
        temperature=temperature,
        threshold=THRESHOLD,
        quality=RouterQuality("gold", found.questions, found.accuracy, found.macro),
        classes=taxonomy.classes,
        default=taxonomy.default_class,
        taxonomy=taxonomy.digest,
    )
    write_router(router, arguments.out)


def gathered(intents: list[str], of_pieces: NDArray[np.float32]) -> Pool:
    """All questions that are no near-duplicates of reported ones, each text once."""
    reported = [row.question for row in read_questions(REPORT)]
    hand = apart([row for name in TUNING for row in read_questions(name)], reported)
    templates = apart(pool_questions(DRAWS, SEED), reported)
    lines = WRITTEN_QUESTIONS.read_text(encoding="utf-8").splitlines()
    written = [row.question for row in apart([Intended(line, "") for line in lines], reported)]
    texts = [*(row.question for row in hand), *(row.question for row in templates), *written]
    kinds = np.repeat((HAND, TEMPLATE, WRITTEN), (len(hand), len(templates), len(written)))
    known = [intents.index(row.intent) for row in (*hand, *templates)] + [-1] * len(written)
    groups = np.array(duplicate_groups(texts))
    rng = random.Random(SEED)
    drawn = rng.sample(range(len(hand), len(hand) + len(templates)), NOISED_TEMPLATES)
    parents = [*np.repeat(np.flatnonzero(kinds == HAND), NOISED_HAND), *drawn]
    parents += [*np.repeat(np.flatnonzero(kinds == WRITTEN), NOISED_WRITTEN)]
    vocabulary = packaged("assets/minilm-vocabulary.txt").read_text(encoding="utf-8").splitlines()
    plain = [place for place, word in enumerate(vocabulary) if re.fullmatch(r"[a-z]{3,}", word)]
    wanted = [word for place in parents for word in content_words(texts[place])]
    near = neighbours([vocabulary[place] for place in plain], of_pieces[plain], wanted)
    common = [vocabulary[place] for place in plain if place < COMMON]
    more = [noised(texts[place], near, common, rng) for place in parents]
    kept = np.flatnonzero(~near_duplicates(more, reported))
    more, origins = [more[place] for place in kept], np.array(parents)[kept]
    return Pool(
        texts + more,
        np.concatenate([kinds, np.full(len(more), NOISED)]),
        np.array(known + [-1] * len(more)),
        np.concatenate([groups, groups[origins]]),
    )


@dataclass(frozen=True)
class Trainer:
    """Trains teacher and router on a part of the questions."""

    pool: Pool
    embeddings: NDArray[np.float16]
    """``[questions, width]``"""
    classes: NDArray[np.int64]
    """``[intents]``: the place of each one's class."""
    vectors: NDArray[np.int8]
    """Of word pieces, see `WordNetwork`."""
    scales: NDArray[np.float32]

    def router(self, known: NDArray[np.bool_], seed: int) -> Router:
        """A router without temperature, threshold and names.

        Args:
            known: ``[questions]``, which of them may be seen.
            seed: of everything random.
        """
        pool = self.pool
        lesson = self.lesson(known, seed)
        # Classes are no likelier than others for being easier to write templates for.
        prior = np.log((lesson.targets * lesson.shares[:, None]).sum(0) / lesson.shares.sum())
        weights, bias = train_ngrams(lesson, HASHING, seed)
        network, shift = train_network(lesson, self.vectors, self.scales, seed)
        names = tuple(map(str, range(len(prior))))
        training = RouterTraining(sha256_json(pool.questions), int(known.sum()), (f"embedding of {MiniLM().identity}",))
        return Router(
            names,
            None,
            "0" * 64,
            weights * np.float32(0.5),
            ((bias + shift) / 2 - prior).astype(np.float32),
            1.0,
            0.0,
            training,
            HASHING,
            replace(network, output=network.output * np.float32(0.5)),
        )

    def lesson(self, known: NDArray[np.bool_], seed: int) -> Lesson:
        """What the router is to learn: the intent that is known and the teacher's opinion, in classes."""
        pool = self.pool
        places = np.flatnonzero(known)
        opinion = self.opinion(known, seed)[places]
        kinds, intents = pool.kinds[places], pool.intents[places]
        truth = np.eye(opinion.shape[1])[intents] * (intents >= 0)[:, None]
        share = np.select([kinds == HAND, kinds == TEMPLATE], [HAND_TRUTH, TEMPLATE_TRUTH], 0.0)[:, None]
        of_intents = share * truth + (1 - share) * opinion
        targets = np.zeros((len(places), int(self.classes.max()) + 1), np.float32)
        np.add.at(targets.T, self.classes, of_intents.T.astype(np.float32))
        weights = np.select([kinds == HAND, kinds == WRITTEN], [HAND_SHARE, WRITTEN_SHARE], 1.0).astype(np.float32)
        return Lesson([pool.questions[place] for place in places], targets, weights, self.embeddings[places])

    def opinion(self, known: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
        """``[questions, intents]``: probabilities by a head on embeddings and n-grams, as the packaged labeler has."""
        pool = self.pool
        hand = np.flatnonzero(known & (pool.kinds == HAND))
        templates = np.flatnonzero(known & (pool.kinds == TEMPLATE))
        taught = np.random.default_rng(seed).choice(templates, min(TEMPLATES_TAUGHT, len(templates)), replace=False)
        rows = np.concatenate([hand, np.sort(taught)])
        shares = np.where(pool.kinds[rows] == HAND, 1.0, POOL_WEIGHT * len(hand) / len(taught))
        weights, bias = fit(self.matrix[rows], pool.intents[rows], len(self.classes), shares)
        return softmax(self.matrix @ weights + bias)

    @cached_property
    def matrix(self) -> csr_matrix:
        """``[questions, width + buckets]``"""
        features = feature_matrix(self.pool.questions, Hashing())
        return hstack([csr_matrix(self.embeddings.astype(np.float32)), features]).tocsr()


def _macro(given: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float(np.mean([(given[truth == place] == place).mean() for place in np.unique(truth)]))


if __name__ == "__main__":
    main()
