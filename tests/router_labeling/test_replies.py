"""What counts as a label in a reply, and how sure it is."""

import json
import math

import pytest
from hypothesis import given, strategies as st

from clasp_calib.router_labeling.prompt import LONGEST, longest_answer, messages, prompt_digest, schema
from clasp_calib.router_labeling.replies import BadReplyError, Token, confidence, read_intent
from clasp_calib.router_labeling.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()


@pytest.mark.parametrize(
    "text",
    ['{"intent":"counting"}', '{ "intent" : "counting" }\n', '<think>\n{"a": 1}\n</think>\n\n{"intent":"counting"}'],
)
def test_a_reply_of_the_schema(text):
    assert read_intent(text, "stop", TAXONOMY) == "counting"


@pytest.mark.parametrize(
    ("text", "finish", "complaint"),
    [
        ('{"intent"' + "\n\t" * 200, "length", "cut off"),
        ("counting", "stop", "not JSON"),
        ("", "stop", "not JSON"),
        ("[" * 100_000, "stop", "not JSON"),
        ('["counting"]', "stop", "not of the schema"),
        ('{"intent":"counting","why":"so"}', "stop", "not of the schema"),
        ('{"intent":"telepathy"}', "stop", "unknown intent"),
        ('{"intent":["counting"]}', "stop", "unknown intent"),
    ],
)
def test_what_is_no_label(text, finish, complaint):
    with pytest.raises(BadReplyError, match=complaint) as caught:
        read_intent(text, finish, TAXONOMY)
    assert len(str(caught.value)) < 500


@given(st.sampled_from(sorted(TAXONOMY.intents)), st.lists(st.integers(1, 8), min_size=1), st.data())
def test_confidence_is_the_product_over_the_tokens_that_spell_the_intent(intent, sizes, data):
    text = json.dumps({"intent": intent})
    pieces, place = [], 0
    while place < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[place : place + size])
        place += size
    tokens = [Token(piece, data.draw(st.floats(-5, 0))) for piece in pieces]
    begin = text.index(intent, 10)
    owner = [number for number, piece in enumerate(pieces) for _ in piece]
    spelled = {owner[i] for i in range(begin, begin + len(intent))}
    expected = math.prod(math.exp(tokens[i].logprob) for i in spelled)
    found = confidence(tokens, intent)
    assert found == pytest.approx(expected)


def test_confidence_is_none_where_tokens_do_not_spell_the_intent():
    assert confidence([], "counting") is None
    assert confidence([Token("other", -1.0)], "counting") is None


@given(st.text(max_size=50) | st.text("<|>im_endthink/\"'{}\\\n", max_size=50))
def test_the_question_is_one_json_string_without_special_tokens(question):
    system, user = messages(TAXONOMY, question)
    assert system == messages(TAXONOMY, "another")[0]
    assert isinstance(json.loads(user["content"].removeprefix("Question: ")), str)
    assert "<|" not in user["content"]
    assert "<think" not in user["content"]
    assert "\n" not in user["content"]


def test_a_long_question_keeps_both_ends():
    shown = json.loads(messages(TAXONOMY, "a" * 5000 + "Why?")[1]["content"].removeprefix("Question: "))
    assert len(shown) == LONGEST
    assert shown.startswith("aaa")
    assert shown.endswith("aWhy?")


def test_the_answer_fits_and_the_digest_follows_the_taxonomy():
    assert schema(TAXONOMY)["properties"]["intent"]["enum"] == list(TAXONOMY.intents)
    assert all(len(json.dumps({"intent": i})) <= longest_answer(TAXONOMY) for i in TAXONOMY.intents)
    assert prompt_digest(TAXONOMY) != prompt_digest(TAXONOMY.model_copy(update={"default_intent": "counting"}))
