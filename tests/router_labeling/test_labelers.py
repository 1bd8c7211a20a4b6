"""What the packaged rules say about ordinary questions."""

import json

import pytest

from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import KeywordLabeler, Labeler, Scheme, load_scheme
from clasp_calib.router_labeling.rules import RuleSet

SCHEME = load_scheme()
TAXONOMY = SCHEME.taxonomy
KEYWORDS = JournalledLabeler(KeywordLabeler(), SCHEME)
NO_RULES = JournalledLabeler(KeywordLabeler(), Scheme(TAXONOMY, RuleSet(version=1, rules=())))


def class_of(question: str) -> str:
    return TAXONOMY.class_of(next(KEYWORDS.label([question])).intent)


def test_examples_of_the_taxonomy_are_labelled_as_the_taxonomy_says():
    examples = [(slug, text) for slug, intent in TAXONOMY.intents.items() for text in intent.examples]
    guessed = [guess.intent for guess in KEYWORDS.label([text for _, text in examples])]
    own = sum(intent == slug for intent, (slug, _) in zip(guessed, examples, strict=True))
    assert len(examples) == 45
    assert own >= 44, [e for intent, e in zip(guessed, examples, strict=True) if intent != e[0]]


@pytest.mark.parametrize(
    ("expected", "questions"),
    [
        (
            "object",
            ["What is the red object?", "Which thing is blue?", "Is there a red ball?", "Is there a person?"],
        ),
        ("object", ["What is the small green object?", "What am I holding?", "Do you see any birds?"]),
        ("attribute", ["What colour is the ball?", "How big is the key?", "What size is the key?"]),
        ("attribute", ["What color is the object used for cutting?", "Is the street wet or dry?"]),
        (
            "text",
            ["What does the sign say?", "Which number is written on the board?", "What word is on the sign?"],
        ),
        (
            "text",
            ["What number is on the sign?", "What country does this flag belong to?", "Who wrote the book?"],
        ),
        ("scene", ["What place is this?", "Is it day or night?", "Where was this photo shot?"]),
        (
            "spatial",
            ["Where is the ball?", "Is the key left or right of the cup?", "What is behind the chair?"],
        ),
        ("spatial", ["Is the key left, right, above or below the cup?", "Is the cat under the table?"]),
        (
            "counting",
            ["How many balls are there?", "How many red objects are there?", "Are there exactly three cars?"],
        ),
        (
            "action",
            ["What is the person doing?", "What is the man pushing?", "What is the arrow pointing at?"],
        ),
        (
            "action",
            ["What is the woman at the window holding?", "Is the woman smiling?", "Who is riding the bike?"],
        ),
        ("function", ["What is the red thing used for?", "Why is the boy crying?", "What will happen next?"]),
        ("default", ["Is the ball bigger than the cup?", "Is the ball larger than the cup?", "hello", ""]),
        ("default", ["Are there more balls than cups?", "Write a story about this image.", "\u4f60\u597d"]),
    ],
)
def test_class_of_ordinary_questions(expected: str, questions: list[str]):
    assert {question: class_of(question) for question in questions} == dict.fromkeys(questions, expected)


def test_counting_more_than_a_number_is_no_comparison():
    assert class_of("Are there more than two balls?") == "counting"


def test_guess_of_a_rule_and_of_none():
    known, unknown = KEYWORDS.label(["Who wrote it?", "Zzz."])
    assert (known.intent, known.confidence, known.source, known.rule) == (
        "text_recognition",
        1.0,
        "rule",
        "who-wrote",
    )
    assert (unknown.intent, unknown.confidence, unknown.source, unknown.rule) == (
        "other",
        0.0,
        "default",
        None,
    )


def test_labels_come_one_by_one_and_in_order():
    labeler: Labeler = KEYWORDS
    questions = ["How many?", "Where?", "Why?"]
    guesses = labeler.label(questions)
    assert next(guesses).intent == "counting"
    assert [guess.intent for guess in guesses] == ["spatial_relation", "function_or_intention"]


def test_fingerprint_changes_with_the_rules():
    fingerprint = json.loads(KEYWORDS.fingerprint)
    assert fingerprint["labeler"] == "keyword"
    assert fingerprint["taxonomy"] == TAXONOMY.digest
    assert NO_RULES.fingerprint != KEYWORDS.fingerprint


def test_without_rules_everything_is_default():
    assert {g.source for g in NO_RULES.label(["Why?", "What?"])} == {"default"}
