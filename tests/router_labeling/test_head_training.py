"""Fitting a head: what it learns, that it is judged fairly, and what it refuses."""

from types import SimpleNamespace

import numpy as np
import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.head_training import Intended, train_head
from clasp_calib.router_labeling.labelers import Scheme, load_scheme

pytest.importorskip("sklearn")
SCHEME = load_scheme()
THINGS = "dog cat car boat tree lamp shoe bird plane chair cup ball house horse plate clock phone fence".split()  # noqa: SIM905
FRAMES = {"counting": "what number of {}s", "attribute_recognition": "tint of that {}", "other": "zip {} zap"}
ROWS = [Intended(frame.format(thing), intent) for intent, frame in FRAMES.items() for thing in THINGS]


class Lengths:
    """Vectors that know a question's length and nothing else."""

    identity = '{"embedder":"lengths"}'

    def embed(self, questions):
        return np.array([[len(question) / 50, 1.0] for question in questions], np.float32)


def trained(rows=ROWS, **changes):
    return train_head(rows, SCHEME, Lengths(), **changes)


def asked(head, question) -> str:
    return head.intents[int(head.probabilities([question], Lengths().embed([question]), [-1])[0].argmax())]


def test_it_learns_what_separates_the_intents():
    head = trained(rules_weight=0.0)
    assert asked(head, "what number of zebras") == "counting"
    assert asked(head, "tint of that sky") == "attribute_recognition"
    assert head.quality.macro > 0.9
    assert head.rules_weight == 0
    assert trained(rules_weight=0.0).digest == head.digest


def test_noise_is_not_taken_for_knowledge():
    intents = np.random.default_rng(0).permutation([row.intent for row in ROWS])
    rows = [Intended(row.question, intent) for row, intent in zip(ROWS, intents, strict=True)]
    found = trained(rows, rules_weight=0.0)
    assert found.quality.macro < 0.6


class Oracle:
    """Rules that know the intents of rows, or claim to."""

    digest = "0" * 64

    def __init__(self, intents):
        self.intents = intents

    def bare(self, question):
        return question

    def match(self, question):
        return SimpleNamespace(intent=self.intents[question])


def test_rules_get_a_vote_if_they_are_right():
    """Questions say nothing about their intents, so rules that know them should decide, and others should not."""
    mixed_up = np.random.default_rng(0).permutation([row.intent for row in ROWS]).tolist()
    rows = [Intended(row.question, intent) for row, intent in zip(ROWS, mixed_up, strict=True)]
    known = {row.question: row.intent for row in rows}
    wrong = {row.question: "symbol_recognition" for row in rows}
    weights = [train_head(rows, Scheme(SCHEME.taxonomy, Oracle(of)), Lengths()).rules_weight for of in (known, wrong)]
    assert weights[0] > 0.5
    assert weights[1] == 0


def test_the_pool_is_learnt_from_and_never_judged():
    pool = [Intended(f"gizmo number {n} of the gang", "interaction") for n in range(30)]
    head = trained(pool=pool, rules_weight=0.0)
    assert asked(head, "gizmo number 99 of the gang") == "interaction"
    assert head.quality.questions == len(ROWS)
    assert head.questions == len(ROWS) + len(pool)


def test_too_few_questions_and_unknown_intents_are_refused():
    with pytest.raises(InputError, match="25 questions of two intents"):
        trained(ROWS[:20])
    with pytest.raises(InputError, match="expected one of"):
        trained([*ROWS, Intended("what?", "nonsense")])
    with pytest.raises(InputError, match="near-duplicates"):
        trained([Intended("how many dogs", "counting")] * 20 + [Intended("what colour", "attribute_recognition")] * 20)
