"""Fields of files that may come from anybody, and how their errors read."""

import pytest
from pydantic import ValidationError

from clasp_calib.artifacts.manifest import Prompt
from clasp_calib.common.fields import Line, Strict, describe


class Known(Strict):
    name: Line = "a"
    prompt: Prompt = "b"


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("name", "mo\tdel", r"name: holds '\\t', a character that a terminal cannot print \(given 'mo"),
        ("name", "a\u202eb", r"name: holds '\\u202e', a character"),
        ("name", "", "name: String should match pattern"),
        ("name", "a" * 5000, r"name: has 5000 characters; expected 4096 at most \(given"),
        ("prompt", "one\r\ntwo", r"prompt: holds '\\r', a character"),
    ],
)
def test_a_character_that_no_field_may_have_is_named(field, text, told):
    with pytest.raises(ValidationError) as caught:
        Known.model_validate({field: text})
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(describe(caught.value))
