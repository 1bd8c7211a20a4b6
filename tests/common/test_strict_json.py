"""JSON that says two things, or that takes a reader down, is refused."""

import pytest

from clasp_calib.common.errors import ClaspError, InputError
from clasp_calib.common.strict_json import MOST_DEPTH, strict_json


def test_plain_json_is_read():
    assert strict_json(b'{"a": [1, 2.5, null, true, "\xc3\xbc"], "b": {}}') == {"a": [1, 2.5, None, True, "ü"], "b": {}}
    assert strict_json(b"NaN", finite=False) != strict_json(b"NaN", finite=False)
    assert strict_json(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 1}', "the key 'a' stands twice"),
        (b'[{"b": {"a": 1, "a": {}}}]', "the key 'a' stands twice"),
        (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), "nested more than 32 deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested"),
        (b"[" * 10**6, "nested too deeply"),
        (b"NaN", "NaN is no finite number"),
        (b"[-Infinity]", "-Infinity is no finite number"),
        (b"1e999", "1e999 is no finite number"),
        (b"1" * 5000, "digits"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
        (b"{}{}", "Extra data"),
    ],
)
def test_what_is_none_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        strict_json(content)


def test_a_key_that_stands_twice_among_very_many_is_found_at_once():
    keys = ",".join(f'"k{number}":0' for number in range(200_000))
    with pytest.raises(ValueError, match="'k199999' stands twice"):
        strict_json(f'{{{keys},"k199999":0}}'.encode())


def test_messages_hold_no_control_characters():
    error = InputError("\x1b[2Jgone\r\x07 \x9b31m \u202egnp.exe \u2028\ttab\nline ü")
    assert str(error) == "\\x1b[2Jgone\\r\\x07 \\x9b31m \\u202egnp.exe \\u2028\ttab\nline ü"
    assert isinstance(error, ClaspError)
