"""Why a question goes where it goes, and which phrases can never decide."""

from typing import Any

from clasp_calib.router_labeling.lint import explain, shadowed, unused_word_lists
from clasp_calib.router_labeling.rules import RuleSet, load_rules
from clasp_calib.router_labeling.taxonomy import load_taxonomy


def rules(*patterns: Any, **more: Any) -> RuleSet:
    listed = [{"id": f"r{i}", "intent": "other", "pattern": pattern} for i, pattern in enumerate(patterns)]
    return RuleSet.model_validate({"version": 1, "rules": listed, **more})


def found(*patterns: Any, **more: Any) -> list[tuple[str, str, bool]]:
    return [(entry.rule, entry.phrase, entry.whole_rule) for entry in shadowed(rules(*patterns, **more))]


def test_a_phrase_that_holds_an_earlier_one_is_shadowed():
    assert found(["ball"], ["red ball", "cup"]) == [("r1", "red ball", False)]
    assert found(["ball"], ["red ball"]) == [("r1", "red ball", True)]
    assert found(["red ball"], ["ball"]) == []


def test_all_alternatives_must_be_caught():
    assert found(["red|blue"], ["red|blue|green ball"]) == []
    assert found(["red|blue"], ["green"], ["red|blue|green ball"]) == [("r2", "red|blue|green ball", True)]
    assert found(["<colour>"], ["red ball"], words={"colour": ["red", "blue"]}) == [("r1", "red ball", True)]


def test_places_and_gaps():
    assert found(["^ red"], ["red"]) == []
    assert found(["red"], ["^ red"]) == [("r1", "^ red", True)]
    assert found(["red ball"], ["red ... ball"]) == []
    assert found(["red ... ball"], ["red * ball"]) == [("r1", "red * ball", True)]


def test_what_an_earlier_rule_excludes_can_still_decide():
    assert found({"any": ["ball"], "not": ["cup"]}, ["red ball"]) == []
    assert found({"any": ["ball"], "not": ["cup"]}, {"any": ["red ball"], "not": ["cup"]}) == [("r1", "red ball", True)]


def test_explanation_lists_all_rules_and_their_phrases():
    known = rules(["ball"], ["cup"], {"regex": "red"})
    told = explain(known, "The red BALL, please?")
    assert told.decides is known.rules[0]
    assert [(rule.id, phrases) for rule, phrases in zip(told.matching, told.phrases, strict=True)] == [
        ("r0", ("ball",)),
        ("r2", ()),
    ]
    assert explain(known, "nothing").decides is None


def test_unused_word_lists():
    assert unused_word_lists(rules(["<a>"], words={"a": ["x"], "b": ["y"]})) == ["b"]


def test_the_packaged_rules_have_no_dead_rule():
    packaged = load_rules(None, load_taxonomy())
    assert not [entry for entry in shadowed(packaged) if entry.whole_rule]
    assert unused_word_lists(packaged) == []
