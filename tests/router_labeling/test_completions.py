"""Chat completions as servers send them: read, or no label with the reason."""

import json
import math

import pytest
from hypothesis import given, strategies as st

from clasp_calib.router_labeling.labelers import Guess
from clasp_calib.router_labeling.replies import BadReplyError, read_completion
from clasp_calib.router_labeling.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
TEXT = '{"intent":"counting"}'


def completion(content=TEXT, logprob=-0.5, **more):
    tokens = [{"token": part, "logprob": logprob} for part in ('{"intent":"', "counting", '"}')]
    choice = {"message": {"content": content}, "finish_reason": "stop", "logprobs": {"content": tokens}, **more}
    return {"choices": [choice]}


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        [{"type": "text", "text": TEXT}],
        [{"type": "output_text", "text": TEXT[:7]}, {"type": "text", "text": TEXT[7:]}],
        [{"type": "thinking", "text": "two or three?"}, {"type": "text", "text": TEXT}],
    ],
)
def test_content_is_a_text_or_parts_of_one(content):
    assert read_completion(completion(content), TAXONOMY) == Guess("counting", math.exp(-0.5), TEXT)


@pytest.mark.parametrize("content", [None, 7, True, {"text": TEXT}, [], [TEXT], [{"type": "text", "text": 3}], [[]]])
def test_content_of_another_kind_is_no_label(content):
    with pytest.raises(BadReplyError, match="has no text"):
        read_completion(completion(content), TAXONOMY)


@pytest.mark.parametrize("logprob", [1e308, 0.5, math.nan, math.inf, 10**400, None, "-0.1", [], True, False])
def test_an_absurd_log_probability_is_no_confidence(logprob):
    assert read_completion(completion(logprob=logprob), TAXONOMY) == Guess("counting", None, TEXT)


@pytest.mark.parametrize(
    ("logprob", "expected"), [(1e-6, 1.0), (0, 1.0), (-9999.0, 0.0), (-math.inf, 0.0), (-1e308, 0.0)]
)
def test_an_odd_log_probability_that_is_one_is_taken(logprob, expected):
    assert read_completion(completion(logprob=logprob), TAXONOMY).confidence == expected


@pytest.mark.parametrize(
    "logprobs",
    [None, [], {}, {"content": None}, {"content": 3}, {"content": ["a"]}, {"content": [{"token": "counting"}]}, "no"],
)
def test_missing_log_probabilities_are_no_confidence(logprobs):
    assert read_completion(completion(logprobs=logprobs), TAXONOMY) == Guess("counting", None, TEXT)


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ({}, "lacks 'choices'"),
        ([], "lacks 'choices'"),
        ({"choices": None}, "lacks 'choices'"),
        ({"choices": []}, "lacks 'choices'"),
        ({"choices": ["counting"]}, "lacks 'choices'"),
        ({"choices": [{}]}, "has no text"),
        (completion('{"intent":"counting","intent":"color"}'), "not of the schema"),
        (completion('[["intent","counting"]]'), "not of the schema"),
        (completion('{"intent":' + "9" * 5000 + "}"), "not JSON"),
        (completion(finish_reason="length"), "cut off"),
        (completion(finish_reason="content_filter"), "withheld"),
        ({"choices": completion()["choices"] + completion('{"intent":"other"}')["choices"]}, "2 choices that differ"),
    ],
)
def test_what_is_no_completion(reply, complaint):
    with pytest.raises(BadReplyError, match=complaint) as caught:
        read_completion(reply, TAXONOMY)
    assert len(str(caught.value)) < 500


def test_choices_that_agree_are_one():
    assert read_completion({"choices": completion()["choices"] * 2}, TAXONOMY).intent == "counting"


def test_text_that_is_not_unicode_can_still_be_kept():
    raw = read_completion(completion("\ud800</think>" + TEXT), TAXONOMY).raw
    assert raw.encode() == b"?</think>" + TEXT.encode()


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(TEXT)
names = st.sampled_from(
    ["choices", "message", "content", "logprobs", "token", "logprob", "text", "type", "finish_reason"]
)
values = st.recursive(scalars, lambda part: st.lists(part, max_size=3) | st.dictionaries(names, part, max_size=4))


@given(values | values.map(lambda v: {"choices": [{"message": {"content": TEXT}, "logprobs": {"content": v}}]}))
def test_whatever_a_server_says_is_a_label_or_a_reason(value):
    try:
        guess = read_completion(json.loads(json.dumps(value)), TAXONOMY)
    except BadReplyError:
        return
    assert guess.intent in TAXONOMY.intents
    assert guess.confidence is None or 0 <= guess.confidence <= 1
