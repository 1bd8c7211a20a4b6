"""Matching: phrases, order, word boundaries, Unicode; and what is said about bad rule files."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.router_labeling.rules import RuleSet, load_rules, normalise, phrase_regex
from clasp_calib.router_labeling.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
PACKAGED = load_rules(None, TAXONOMY)


def rule_set(*patterns: Any, **more: Any) -> RuleSet:
    rules = [{"id": f"r{i}", "intent": "other", "pattern": pattern} for i, pattern in enumerate(patterns)]
    return RuleSet.model_validate({"version": 1, "rules": rules, **more})


def matches(pattern: Any, question: str, **more: Any) -> bool:
    return rule_set(pattern, **more).match(question) is not None


@pytest.mark.parametrize(
    ("phrase", "yes", "no"),
    [
        ("who wrote", "So who wrote it?", "who once wrote it?"),
        ("who wrote", "Who, wrote it?", "Who? Wrote it?"),
        ("cat", "The cat's bowl", "The category"),
        ("cat", "a 'cat'", "tomcat"),
        ("count*", "counting", "account"),
        ("color|colour of", "the colour of", "the color off"),
        ("what ... say", "what does the sign say", "what does it. say"),
        ("what ... say", "what say", "say what"),
        ("what ... say", "what 1 2 3 4 5 6 7 8 say", "what 1 2 3 4 5 6 7 8 9 say"),
        ("is the * red", "is the ball red", "is the red"),
        ("^ where", "  Where is it", "and where is it"),
        ("in front $", "which is in front?!", "in front of it"),
        ("^ why $", "Why?", "Why not?"),
        ("what's", "what is this", "whatsoever"),
        ("c++", "is this c++ code", "is this c"),
        ("t-shirt", "the T-shirt", "the tshirt"),
        ("STOP", "a stop sign", "nonstop"),
    ],
)
def test_phrase(phrase: str, yes: str, no: str):
    assert matches([phrase], yes)
    assert not matches([phrase], no)


def test_conditions_must_all_hold():
    pattern = {"any": ["ball", "cup"], "all": ["red", "round"], "not": ["how many"], "regex": r"\?$"}
    assert matches(pattern, "Is the round red cup here?")
    assert not matches(pattern, "Is the round red key here?")
    assert not matches(pattern, "Is the red cup here?")
    assert not matches(pattern, "How many round red cups, or a cup?")
    assert not matches(pattern, "the round red cup")


def test_word_lists_may_hold_several_words_and_endings():
    words = {"fruit": ["apple*", "star fruit"]}
    assert matches(["ripe <fruit>|pear"], "a ripe star  fruit", words=words)
    assert matches(["ripe <fruit>|pear"], "ripe apples", words=words)
    assert matches(["ripe <fruit>|pear"], "a ripe pear", words=words)
    assert not matches(["ripe <fruit>|pear"], "a ripe star", words=words)


def test_first_match_wins_and_order_decides():
    forwards = rule_set(["red ball"], ["ball"])
    backwards = rule_set(["ball"], ["red ball"])
    for rules, winner in ((forwards, "red ball"), (backwards, "ball")):
        rule = rules.match("the red ball")
        assert rule is not None
        assert rule.id == "r0"
        assert rule.pattern.any_ == (winner,)
    second = forwards.match("the blue ball")
    assert second is not None
    assert second.id == "r1"
    assert forwards.match("the cup") is None


@pytest.mark.parametrize(
    "question",
    [
        "WHO WROTE it?",
        "who\u00a0wrote it?",
        "ＷＨＯ　ｗｒｏｔｅ it?",
        "who\n\n wrote it?",
        "\u201cwho wrote\u201d it",
        "𝐰𝐡𝐨 𝐰𝐫𝐨𝐭𝐞 it",
    ],
)
def test_unicode_forms_of_the_same_question_match_alike(question: str):
    rule = PACKAGED.match(question)
    assert rule is not None
    assert rule.id == "who-wrote"


def test_case_folding_goes_beyond_lower_case():
    assert matches(["straße"], "Die STRASSE")
    assert matches(["σίσυφος"], "ΣΊΣΥΦΟΣ")
    assert matches(["eﬃcient"], "EFFICIENT")
    assert matches({"regex": "Straße|STRASSE"}, "straße")


def test_contractions_and_careless_spelling():
    assert normalise("What’s   up") == normalise("whats up") == "what is up"
    assert normalise("the cat's paw, whose?") == "the cat's paw, whose?"


def test_parts_that_are_not_the_question_are_ignored():
    asked = "<image>\nWhat is it?\nA. How many\nB. Why\nAnswer with the option's letter from the choices."
    assert PACKAGED.bare(asked) == "what is it?"
    rule = PACKAGED.match(asked)
    assert rule is not None
    assert rule.intent == "object_identification"
    assert PACKAGED.match("Answer the question using a single word or phrase.") is None


SMALL = rule_set(["a ... b"], {"any": ["a*"], "not": ["b"]}, {"regex": r"\d"}, ["^ * $"])


@given(st.text("ab ?1.\n'") | st.text())
def test_match_never_raises_and_is_the_first_of_all_rules_that_match_alone(question: str):
    rule = SMALL.match(question)
    alone = [r for r in SMALL.rules if RuleSet(version=1, rules=(r,)).match(question)]
    assert rule == (alone[0] if alone else None)
    assert PACKAGED.match(question) in (None, *PACKAGED.rules)


@given(st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=4), st.text(max_size=20))
def test_a_phrase_of_plain_words_is_found_exactly_where_whole_words_are(words: list[str], rest: str):
    regex = re.compile(phrase_regex(" ".join(words), {}))
    plain = normalise(" ".join(words))
    assert regex.search(plain)
    assert regex.search(f"x. {plain} - y")
    assert not regex.search(f"a{plain}")
    assert not regex.search(f"{plain}a")
    text = normalise(rest)
    wanted = plain.split()
    found = [m for m in (re.findall(r"\w+", part) for part in re.split(r"[.?!]", text)) if m]
    expected = any(part[i : i + len(wanted)] == wanted for part in found for i in range(len(part)))
    if "'" not in plain:
        assert bool(regex.search(text)) == expected


@pytest.mark.parametrize(
    "part", ["-", "'", "a ", "is ", "is -", "\n", "?", "what ", "a-", "a\n", "a. ", "answer with "]
)
def test_long_questions_do_not_make_the_packaged_rules_crawl(part: str):
    start = time.process_time()
    PACKAGED.match(part * (8000 // len(part)))
    assert time.process_time() - start < 2


def test_digest_follows_what_decides_a_match():
    plain = rule_set(["ball"], ["cup"])
    assert plain.digest == rule_set(["ball"], {"any": ["cup"]}).digest
    others = [
        rule_set(["cup"], ["ball"]),
        rule_set(["ball"], ["cups"]),
        rule_set(["ball"], ["cup"], ignore=["x"]),
    ]
    assert len({plain.digest, *(rules.digest for rules in others)}) == 4


def file_with(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "my-rules.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def one(pattern: Any, **more: Any) -> dict[str, Any]:
    return {"version": 1, "rules": [{"id": "mine", "intent": "other", "pattern": pattern, **more}]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (one(["a"], intent="telepathy"), "rule 'mine' has the intent 'telepathy'; expected one of object_id"),
        ({"version": 1, "rules": one(["a"])["rules"] * 2}, "rule id 'mine' is used 2 times"),
        (one({"regex": "(a"}), r"rule 'mine': '\(a' is not a regular expression"),
        ({**one(["a"]), "ignore": ["[a"]}, r"ignore: '\[a' is not a regular expression"),
        (one([]), "asks for nothing"),
        (one({"not": ["a"]}), "asks for nothing"),
        (one(["... a"]), "must begin and end with a word"),
        (one(["^ $"]), "must begin and end with a word"),
        (one(["a ^ b"]), r"\^ may only stand first"),
        (one(["a||b"]), "cannot be an alternative"),
        (one(["front of|$"]), r"'\$' cannot be an alternative"),
        (one(["what's|which"]), "write the contraction"),
        (one(["<fruit> here"]), "uses <fruit>, but there is no such word list"),
        ({**one(["a"]), "words": {"fruit": []}}, "word list 'fruit' is empty"),
        (one([True]), r"rules\.0\.pattern\.any\.0"),
        (one("a"), r"rules\.0\.pattern"),
        (one({"some": ["a"]}), r"rules\.0\.pattern\.some"),
        (one(["a"], id="Not A Slug"), r"rules\.0\.id"),
        ({"version": 1}, "rules: Field required"),
        ("rules: [\n", "not valid YAML"),
    ],
)
def test_bad_file_is_an_input_error_that_names_file_and_place(tmp_path: Path, content: Any, complaint: str):
    with pytest.raises(InputError, match=complaint) as caught:
        load_rules(file_with(tmp_path, content), TAXONOMY)
    assert "my-rules.yaml" in str(caught.value)


def test_own_file(tmp_path: Path):
    rules = load_rules(file_with(tmp_path, one(["knock knock"], overrides=True)), TAXONOMY)
    rule = rules.match("Knock, knock!")
    assert rule is not None
    assert (rule.id, rule.intent, rule.overrides) == ("mine", "other", True)


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match="cannot read the rule file"):
        load_rules(tmp_path / "absent.yaml", TAXONOMY)
