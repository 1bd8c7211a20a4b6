"""What a cell of answers or ids may be, out of every format, and what is refused."""

import datetime
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from clasp_calib.common.answer_cells import Literal, answers_of, id_of, read_column, unfloated

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip), min_size=1, max_size=5
)


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        (None, []),
        (float("nan"), []),
        ("  ", []),
        ([], []),
        ([None, "", float("nan")], []),
        ("left", ["left"]),
        ("two | none", ["two | none"]),
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        (np.array(["a", "b"], object), ["a", "b"]),
        (7, ["7"]),
        (2**80, [str(2**80)]),
        (7.0, ["7"]),
        (-0.0, ["0"]),
        (0.1, ["0.1"]),
        (1e-7, ["0.0000001"]),
        (np.float32(2.3), ["2.3"]),
        (np.int64(4), ["4"]),
        (Decimal("12.50"), ["12.5"]),
        (Decimal("1.2345678901234567890123456789012345"), ["1.2345678901234567890123456789012345"]),
        (Literal("3.0"), ["3.0"]),
        (Literal("1e3"), ["1e3"]),
        (Literal("NaN"), []),
        ([Literal("3"), "three"], ["3", "three"]),
        ({"answer": "net"}, ["net"]),
        (
            [{"answer": "net", "answer_confidence": "no", "answer_id": 1}, {"answer": "mesh", "raw_answer": "a mesh"}],
            ["net", "mesh"],
        ),
        ({"answer": ["net", "mesh"], "answer_id": [1, 2]}, ["net", "mesh"]),
        ("(A)", ["(A)"]),
        ("[sic", ["[sic"]),
    ],
)
def test_what_answers_are(cell, answers):
    assert answers_of(cell) == answers
    assert answers_of(answers) == answers


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (True, "the truth value True; write the text"),
        ([np.bool_(False)], "the truth value False"),
        (float("inf"), "no number to answer with"),
        (Literal("-Infinity"), "no number to answer with"),
        (1e17, "has lost digits: give it as a text"),
        (np.float32(2**25), "has lost digits"),
        (Decimal("1e99999"), "too many digits"),
        pytest.param(10**5000, "digits", id="long"),
        (b"yes", "a bytes; expected a text, a number"),
        (datetime.date(2024, 1, 2), "a date; expected"),
        ([["a"]], "a list; expected"),
        ({"text": ["a"], "answer_start": [0]}, "an object with text, answer_start; expected answer, "),
        ({"answer": "a", "why": "b"}, "an object with answer, why"),
        ({"answer": {"answer": "a"}}, "holds objects"),
        ({"a", "b"}, "a set; expected"),
        ("nan", "the text 'nan', which pandas writes for nothing"),
        ("<NA>", "which pandas writes for nothing"),
        ("[3, 4]", "looks like the printed form"),
        ("[cat, dog]", "looks like the printed form"),
        ("['a' ... 'z']", "looks like the printed form"),
        ("['a', 'b' 'c']", "looks like the printed form"),
        ("['a', ['b']]", "looks like the printed form"),
        ('[["a"]]', "looks like the printed form"),
        ("[{'answer': 'net'}]", "looks like the printed form"),
        ("{'answer': 'net'}", "looks like the printed form"),
        ("array(['a'], dtype=object)", "looks like the printed form"),
        ("[" * 100_000 + "]" * 100_000, "looks like the printed form"),
        ("['" + "a" * 100_000 + "]", "looks like the printed form"),
    ],
)
def test_what_is_no_answer_is_refused(cell, message):
    with pytest.raises(ValueError, match=message):
        answers_of(cell)


@given(TEXTS)
def test_a_list_that_was_printed_is_read_back(texts):
    for printed in (json.dumps(texts), json.dumps(texts, ensure_ascii=False), repr(texts), repr(tuple(texts))):
        assert answers_of(printed) == texts
        assert answers_of(printed, "|") == texts
    assert answers_of("[" + " ".join(map(repr, texts)) + "]") == texts
    assert answers_of("[" + "\n ".join(map(repr, texts)) + "]") == texts


def test_annotations_that_were_printed_as_json_are_read():
    assert answers_of('[{"answer": "net", "answer_id": 1}, {"answer": "mesh"}]') == ["net", "mesh"]


def test_a_divider_parts_a_text_and_strips_it():
    assert answers_of(" two | none|, ||", "|") == ["two", "none", ","]
    assert answers_of(" | ", "|") == []


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("x 1", "x 1"),
        ("", None),
        (None, None),
        (float("nan"), None),
        (Literal("NaN"), None),
        (5, "5"),
        (1234567890123.0, "1234567890123"),
        (2.5, "2.5"),
        (Literal("1.2e12"), "1200000000000"),
        (Literal("36893488147419103232"), "36893488147419103232"),
        (Literal("7.0"), "7"),
    ],
)
def test_what_an_id_is(cell, name):
    assert id_of(cell) == name


@pytest.mark.parametrize(
    "cell",
    [
        True,
        datetime.date(2026, 1, 2),
        ["a"],
        {"answer": "a"},
        2.0**60,
        Literal("1e999999999"),
        Literal("Infinity"),
        b"a",
    ],
)
def test_what_is_no_id_is_refused(cell):
    with pytest.raises(ValueError, match=r"expected a text or a number|lost digits|too many digits|no number"):
        id_of(cell)


def test_a_column_is_read_in_its_own_precision_and_refused_with_its_row():
    assert list(read_column(pa.chunked_array([pa.array([2.3, None, 3.0], pa.float32())]), answers_of)) == [
        ["2.3"],
        [],
        ["3"],
    ]
    assert list(read_column(pa.chunked_array([pa.array([[0.1], None], pa.list_(pa.float16()))]), answers_of)) == [
        ["0.1"],
        [],
    ]
    assert list(read_column(pa.chunked_array([pa.array(["b", "a"]).dictionary_encode()]), answers_of)) == [["b"], ["a"]]
    with pytest.raises(ValueError, match="row 1: the truth value"):
        list(read_column(pa.chunked_array([[None], [True]], pa.bool_()), answers_of))


def test_whole_numbers_lose_the_end_that_pandas_gave_them():
    assert unfloated(["3.0", None, "-10.0"]) == ["3", None, "-10"]
    assert unfloated(["3.0", "2.5"]) == ["3.0", "2.5"]
    assert unfloated(["3.0", "4.0"], only_with_gaps=True) == ["3.0", "4.0"]
    assert unfloated(["3.0", ""], only_with_gaps=True) == ["3", ""]
    assert unfloated(["", None]) == ["", None]
