"""YAML that a user wrote: read strictly, and never for long."""

import pytest

from clasp_calib.common.errors import InputError
from clasp_calib.common.yaml_files import read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "its aliases stand for more than 1000000 values"),
        ("a: &a [*a]", "its aliases stand for more than"),
        ("{a: 1, a: 2}", "the key 'a' occurs twice"),
        ("{1: a, 0x1: b}", "the key '1' occurs twice"),
        ("{1: a, '1': b}", "the key '1' occurs twice"),
        ("[" * 3000, "nested too deeply"),
        ("!!timestamp x", "a value does not fit its tag"),
        ("!!bool x", "a value does not fit its tag"),
        ("!!int ''", "a value does not fit its tag"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("? [a]\n: b", "unhashable key"),
        ("a: " + "9" * 5000, "4300"),
        ("a\0", "line 1 holds a null byte"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "y"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"rules .*y is not valid YAML: (.|\n)*{message}(.|\n)*; mend the file"):
        read_yaml(path, "rules")


def test_aliases_that_stand_for_little_are_read(tmp_path):
    path = tmp_path / "y"
    path.write_text("a: &a [1, 2]\nb: *a\nc: {x: *a}\n")
    assert read_yaml(path, "rules") == {"a": [1, 2], "b": [1, 2], "c": {"x": [1, 2]}}
