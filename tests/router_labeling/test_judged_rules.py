"""Rules against classes by hand: what each wins and loses, and what a test of signs makes of it."""

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.judged_rules import JudgedRule, judged_rules
from clasp_calib.router_labeling.labelers import Scheme, load_scheme
from clasp_calib.router_labeling.rules import RuleSet

RULES = [
    {"id": "how", "intent": "counting", "pattern": ["how"], "overrides": True},
    {"id": "colour", "intent": "attribute_recognition", "pattern": ["colour"]},
    {"id": "what", "intent": "object_identification", "pattern": ["what"]},
]


def judged(*rows):
    """Of rows (question, class by hand, answer of a labeler)."""
    scheme = Scheme(load_scheme().taxonomy, RuleSet.model_validate({"version": 1, "rules": RULES}))
    table = [{"question": question, "gold_class": gold, "raw": raw} for question, gold, raw in rows]
    return {(one.rule, one.role): one for one in judged_rules(load_samples(table), scheme)}


def test_without_a_labeler_the_first_rule_decides_and_the_next_one_would():
    found = judged(
        ("what colour is it?", "attribute", None),
        ("what colour is a ruby called?", "object", ""),
        ("what is it?", "object", None),
        ("how much?", "default", None),
        ("zzz", "default", None),
        ("what of this?", None, None),
    )
    assert found == {
        ("how", "alone"): JudgedRule("how", "alone", 1, 0, 1, 0, 1),
        ("colour", "alone"): JudgedRule("colour", "alone", 2, 1, 1, 1, 1),
        ("what", "alone"): JudgedRule("what", "alone", 1, 1, 0, 1, 0),
    }
    assert next(iter(found)) == ("how", "alone"), "those that lose most come first"


def test_in_place_of_a_labeler_only_overriding_rules_decide():
    found = judged(
        ("how many dogs?", "counting", '{"intent": "object_presence"}'),
        ("how does he look?", "attribute", '{"intent": "attribute_recognition"}'),
        ("how far?", "default", "the reply was cut off"),
        ("what colour?", "object", '{"intent": "counting"}'),
    )
    assert found == {("how", "overriding"): JudgedRule("how", "overriding", 3, 1, 2, 1, 2)}


@pytest.mark.parametrize(
    ("won", "lost", "chance", "loses"),
    [
        (0, 1, 0.5, False),
        (0, 4, 1 / 16, False),
        (0, 5, 1 / 32, True),
        (1, 7, 9 / 256, True),
        (2, 7, 46 / 512, False),
        (5, 0, 1.0, False),
        (0, 0, 1.0, False),
    ],
)
def test_a_rule_loses_where_chance_does_not_explain_it(won, lost, chance, loses):
    one = JudgedRule("r", "alone", won + lost, won, lost, won, lost)
    assert one.chance == pytest.approx(chance)
    assert one.loses is loses


def test_rows_of_the_source_gold_have_classes_by_hand_and_labels_have_not():
    scheme = load_scheme()
    rows = [
        {"question": "How many dogs are there?", "class": "counting", "source": "gold"},
        {"question": "How many cats are there?", "class": "object", "source": "rule"},
    ]
    (only,) = judged_rules(load_samples(rows), scheme)
    assert (only.questions, only.right) == (1, 1)
    with pytest.raises(InputError, match=r"no classes by hand to judge rules by.*gold_class"):
        judged_rules(load_samples(rows[1:]), scheme)
    with pytest.raises(InputError, match="gold_class 'cats'"):
        judged_rules(load_samples([rows[0] | {"gold_class": "cats"}]), scheme)
