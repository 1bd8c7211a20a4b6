"""Trying only the rules that the index names must decide as trying all of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.router_labeling.rules import RuleSet, load_rules, normalise
from clasp_calib.router_labeling.taxonomy import load_taxonomy

PACKAGED = load_rules(None, load_taxonomy())
GOLD = [json.loads(line)["question"] for line in (Path(__file__).parent / "intents_gold.jsonl").open(encoding="utf-8")]
VOCABULARY = ["what", "is", "the", "red", "cats", "cat", "how", "many", "bus", "stop", "o'clock", "t-shirt", "catfish"]
TOKENS = [*VOCABULARY, "cat*", "*", "cat|dog*", "what's", "<things>", "how|what", "<things>|red"]
WORDS = {"things": ["bus stop", "cat*", "t-shirt", "o'clock tower"]}


def slow_match(rules, question):
    bare = rules.bare(question)
    return next((rule for rule in rules.rules if rules.holds(rule, bare)), None)


phrases = st.builds(
    lambda start, first, middle, last, end: " ".join(
        [*(["^"] if start else []), first, *middle, last, *(["$"] if end else [])]
    ),
    st.booleans(),
    st.sampled_from(TOKENS),
    st.lists(st.sampled_from([*TOKENS, "..."]), max_size=2),
    st.sampled_from(TOKENS),
    st.booleans(),
)
questions = st.lists(st.sampled_from([*VOCABULARY, "bus-stop", "?", ".", "dogs", "tower"]), max_size=9).map(" ".join)


def usable(phrase):
    """Contractions cannot stand among alternatives, and a gap cannot stand beside another."""
    try:
        RuleSet.model_validate(ruled([[phrase]]))
    except ValueError:
        return False
    return True


def ruled(patterns):
    rules = [{"id": str(i), "intent": "x", "pattern": pattern} for i, pattern in enumerate(patterns)]
    return {"version": 1, "words": WORDS, "rules": rules}


@settings(deadline=None, max_examples=200)
@given(
    patterns=st.lists(st.lists(phrases.filter(usable), min_size=1, max_size=3), min_size=1, max_size=5),
    asked=st.lists(questions, min_size=1, max_size=8),
)
def test_any_rules_decide_as_without_the_index(patterns, asked):
    rules = RuleSet.model_validate(ruled(patterns))
    for question in asked:
        assert rules.match(question) == slow_match(rules, question)


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted({w for q in GOLD for w in normalise(q).split()})), max_size=12).map(" ".join))
def test_the_packaged_rules_decide_as_without_the_index(question):
    assert PACKAGED.match(question) == slow_match(PACKAGED, question)


def test_the_packaged_rules_decide_as_without_the_index_on_the_hand_labelled_questions():
    for question in GOLD:
        assert PACKAGED.match(question) == slow_match(PACKAGED, question)


@pytest.mark.parametrize("pattern", [{"all": ["cat", "dog"]}, {"regex": r"\d"}, {"regex": "x", "not": ["y"]}])
def test_rules_without_any_are_always_tried(pattern):
    rules = RuleSet.model_validate(ruled([pattern]))
    for question in ("dog and cat", "7", "x", "x y", "nothing"):
        assert rules.match(question) == slow_match(rules, question)
