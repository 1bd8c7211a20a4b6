"""Large JSON, element by element: the same as all at once, and every damage by its line."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from clasp_calib.common.errors import InputError
from clasp_calib.readers import json_elements as module
from clasp_calib.readers.json_elements import json_elements, json_lines_of, json_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(
    content=st.lists(VALUES) | st.dictionaries(st.text(), VALUES),
    chunk=st.integers(1, 40),
    plain=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_the_same_as_all_at_once(content, chunk, plain, indent, tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "file.json"
    whole = {"a": [1, {"b": "x"}], "key": content, "z": {"key": 3}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        path.write_text(json.dumps(whole, ensure_ascii=plain, indent=indent), "utf-8", "surrogatepass")
        found = list(json_elements(path, "key"))
        assert [value for _, value in found] == list(content if isinstance(content, list) else content.values())
        path.write_text(json.dumps(content, ensure_ascii=plain, indent=indent), "utf-8", "surrogatepass")
        assert [value for _, value in json_elements(path)] == [value for _, value in found]


def test_places_are_named(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('\ufeff{"a": [5, 6], "b": {"x": 7}}', "utf-8")
    assert [place for place, _ in json_elements(path, "a")] == [f"{path}: a[0]", f"{path}: a[1]"]
    assert list(json_elements(path, "b")) == [(f"{path}: b['x']", 7)]


def test_members_have_their_names(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"05\'1": {"a": 1}, "2": 3}')
    assert list(json_members(path)) == [("05'1", f'{path}: ["05\'1"]', {"a": 1}), ("2", f"{path}: ['2']", 3)]
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"file.json: \[0\]: the file is an array; expected an object"):
        list(json_members(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"b": []}', r"has no key 'a' \(it has b\)"),
        ("[]", r"line 1: begins with '\[', expected an object|begins with '\['; expected an object"),
        ("", "begins with 'nothing'"),
        ('{"a": 3}', "line 1: has '3' for a; expected an array or an object"),
        ('{"a": [1,\n2\n3]}', "line 3: has '3' where ',' or ']' was expected"),
        ('{"a": [1,\n{"b": 1, "b": 2}]}', "line 2: the key 'b' stands twice in one object"),
        ('{"a": {"b": 1,\n"b": 2}}', "line 2: the key 'b' stands twice"),
        ('{"a": [],\n"a": []}', "line 2: the key 'a' stands twice"),
        ('{"a": [1, 2', "ends too early; it is cut off"),
        ('{"a": [1, {"b": "x', "line 1: is no JSON"),
        ('{"a": [1], "c": [1', "ends too early; it is cut off"),
        ('{"a": [NaN]}', "the number NaN, which JSON has not"),
        ('{"a": [1,]}', "is no JSON"),
        ('{"a": [1]} x', "goes on with 'x' behind its end"),
        ("{a: [1]}", "where a key in quotes was expected"),
        ('{"a" [1]}', "behind the key 'a'; expected ':'"),
        ('{"a": ' + "[" * 100_000, "nested too deeply|is no JSON"),
    ],
)
def test_what_is_no_json_is_refused_by_its_line(text, told, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        list(json_elements(path, "a"))


def test_other_encodings_are_refused(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(InputError, match="line 1: is not UTF-8"):
        list(json_elements(path))


def test_a_fault_in_a_large_file_is_found_at_once(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('[{"a": 1},\n{"a": oh}' + ',{"a": "x"}' * 400_000 + "]")
    tracemalloc.start()
    with pytest.raises(InputError, match="line 2: is no JSON"):
        list(json_elements(path))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_large_file_is_never_held(tmp_path):
    path = tmp_path / "file.json"
    with path.open("w") as file:
        file.write('{"rows": [0')
        for number in range(200_000):
            file.write(f', {{"id": {number}, "text": "{"x" * 60}"}}')
        file.write("]}")
    assert path.stat().st_size > 16 << 20
    tracemalloc.start()
    assert sum(1 for _ in json_elements(path, "rows")) == 200_001
    assert tracemalloc.get_traced_memory()[1] < 6 << 20
    tracemalloc.stop()


def test_lines(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text('\ufeff{"a": 1}\n\n2\n', "utf-8")
    assert list(json_lines_of(path)) == [(f"{path}: line 1", {"a": 1}), (f"{path}: line 3", 2)]
    for text, told in [("1\n{", "line 2 is no JSON"), ('{"a": 1, "a": 1}', "line 1 is no JSON"), ("NaN", "NaN")]:
        path.write_text(text)
        with pytest.raises(InputError, match=told):
            list(json_lines_of(path))
