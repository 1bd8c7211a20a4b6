"""Question templates: every form that is meant, no other, and a complaint about what is none."""

import random

import pytest
import yaml

from clasp_calib.router_labeling.head_training import Intended
from clasp_calib.router_labeling.taxonomy import load_taxonomy
from tools.labels.templates import Choice, Slot, parse, read_templates
from tools.labels.train import POOL, apart, pool_questions

WORDS = {"thing": ["apple", "cup"]}


def forms(text: str) -> set[str]:
    rng = random.Random(0)
    return {parse("other", text).draw(WORDS, rng) for _ in range(200)}


def test_all_forms_are_drawn_and_no_other():
    assert forms("[hey ](is|was) it a {thing}[?]") == {
        f"{hey}{be} it {a}{mark}"
        for hey in ("hey ", "")
        for be in ("is", "was")
        for a in ("an apple", "a cup")
        for mark in ("?", "")
    }
    assert forms("a (b|c (d|e)|)") == {"a b", "a c d", "a c e", "a"}


@pytest.mark.parametrize("text", ["(a|b", "a)", "[a", "a]", "{thing", "thing}", "{}", "{a(b)}"])
def test_what_is_no_template_is_refused(text):
    with pytest.raises(ValueError, match=r"brackets do not match|not closed"):
        parse("other", text)


def slots(parts):
    for part in parts:
        if isinstance(part, Slot):
            yield part.name
        elif isinstance(part, Choice):
            for option in part.options:
                yield from slots(option)


def test_the_committed_templates_use_known_words_and_intents():
    words = yaml.safe_load((POOL / "vocabulary.yaml").read_text(encoding="utf-8"))
    templates = [template for path in sorted(POOL.glob("*.txt")) for template in read_templates(path)]
    assert {name for template in templates for name in slots(template.parts)} <= set(words)
    assert {template.intent for template in templates} == set(load_taxonomy().intents)
    assert all(isinstance(word, str) for of in words.values() for word in of)


def test_drawing_is_repeatable_and_near_duplicates_of_others_are_left_out():
    assert pool_questions(1, 3) == pool_questions(1, 3) != pool_questions(1, 4)
    rows = [Intended("how many dogs are on the mat", "counting"), Intended("why", "other")]
    assert apart(rows, ["How many dogs are on the mat?"]) == rows[1:]
