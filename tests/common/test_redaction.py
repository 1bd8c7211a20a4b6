"""Secrets in whatever form somebody sends them back, and texts that have none."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import example, given, strategies as st

from clasp_calib.common.redaction import HIDDEN, SHORTEST, redacted

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST, max_size=40)


@given(KEYS, st.text(max_size=20), st.binary(max_size=5), st.binary(max_size=5))
@example('a"b\\c d/e+f=', "", b"user:", b"")
def test_a_secret_is_hidden_in_every_form(key, around, before, after):
    forms = [key, quote(key, safe=""), quote(key), quote(key, safe="").lower(), json.dumps(key)[1:-1]]
    for form in forms:
        assert form not in redacted(f"{around}{form}{around}", [key]).replace(HIDDEN, "")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        spelled = encode(before + key.encode() + after).decode()
        begin, end = -(-8 * len(before) // 6), 8 * (len(before) + len(key)) // 6
        assert spelled[begin:end] not in redacted(spelled, [key]).replace(HIDDEN, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://me:pass@host/v1", "see https://[hidden]host/v1"),
        ("see https://me:p@ss/w@host/v1", "see https://[hidden]host/v1"),
        ("'http://me:pass@a', 'x@y'", "'http://[hidden]a', 'x@y'"),
        ("http://host:80/v1 of org/name@main", "http://host:80/v1 of org/name@main"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer [hidden]"),
        ("Authorization: Basic bWU6cGFzc3dvcmQ=", "Authorization: Basic [hidden]"),
        ("token hf_abcdefghijklmnopqrstuvwx was refused", "token [hidden] was refused"),
        ("me@host, hf_cache/model and Bearer in mind", "me@host, hf_cache/model and Bearer in mind"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text, expected):
    assert redacted(text) == expected


def test_a_stand_in_hides_nothing():
    assert redacted("how many axes", ["x", ""]) == "how many axes"
