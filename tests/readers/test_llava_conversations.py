"""LLaVA's conversations: each turn of a human is a sample."""

import json

import pytest
from readers.published import json_lines, picture_at

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples


def turns(*texts):
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


ROWS = [
    {"id": "a", "image": "coco/1.png", "conversations": turns("<image>\nWhat is it?", "A kite.", "Whose?", "Hers.")},
    {
        "id": "b",
        "image": ["1.png", "2.png"],
        "conversations": turns("What does <image> lack that <image> has?", "A cup."),
    },
    {"id": "c", "conversations": turns("Who wrote Emma?", "Jane Austen."), "model": "x"},
    {
        "id": "a",
        "image": ["1.png", "2.png"],
        "conversations": turns("<image> Red?", "No.", "<image>?", "Yes.", "All?", "No."),
    },
    {"id": 5, "image": "1.png", "conversations": turns("What?\n<image>", "That.")},
]


@pytest.fixture
def home(tmp_path):
    for name in ("coco/1.png", "1.png", "2.png"):
        picture_at(tmp_path / name)
    return tmp_path


def written(home, rows, name="file.json"):
    path = home / name
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("prefix", ["", "llava:"])
def test_turns_become_samples(home, lines, prefix):
    path = json_lines(home / "file.jsonl", ROWS) if lines else written(home, ROWS)
    samples = load_samples(f"{prefix}{path}")
    assert [one.id for one in samples] == ["0.1", "0.2", "1.1", "2.1", "3.1", "3.2", "3.3", "4.1"]
    assert [one.answers for one in samples[:4]] == [("A kite.",), ("Hers.",), ("A cup.",), ("Jane Austen.",)]
    names = [[one.name for one in sample.media] for sample in samples]
    assert names == [["1.png"], ["1.png"], ["1.png", "2.png"], [], ["1.png"], ["2.png"], ["1.png", "2.png"], ["1.png"]]
    assert all(path.is_file() for sample in samples for path in sample.media)
    table = samples.table
    assert table["question"].to_pylist()[:2] == ["<image>\nWhat is it?", "Whose?"]
    assert table["bare_question"].to_pylist()[:2] == ["What is it?", "Whose?"]
    assert table["turn"].to_pylist() == [1, 2, 1, 1, 1, 2, 3, 1]
    assert table["conversation"].to_pylist() == ["a", "a", "b", "c", "a", "a", "a", "5"]
    assert table["model"].to_pylist()[2:5] == [None, "x", None]


def test_pictures_without_a_place_stand_before_each_turn(home):
    rows = [{"image": "1.png", "conversations": turns("What?", "It.", "Why?", "So.")}]
    assert [len(one.media) for one in load_samples(written(home, rows))] == [1, 1]


def test_an_answer_before_the_first_question_is_passed_over(home):
    rows = [{"image": "1.png", "conversations": turns("", "Hello.", "<image>\nWhat?", "It.")[1:]}]
    (sample,) = load_samples(written(home, rows))
    assert (sample.id, sample.question, sample.answers, len(sample.media)) == ("0.1", "<image>\nWhat?", ("It.",), 1)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "x"}, r"\[1\] has no 'conversations' \(it has id\); expected a list of turns"),
        ({"conversations": []}, r"\[1\]: 'conversations' is \[\], a list; expected a list of turns"),
        ({"conversations": turns("What?")}, r"\[1\].conversations\[0\]: .*expected an answer after it"),
        ({"conversations": turns("What?", "It.", "Why?")}, r"\[1\].conversations\[2\]: .*expected an answer after it"),
        ({"conversations": turns("", "It.")[1:]}, r"conversations\[0\]: 'from' is 'gpt', a str; expected human"),
        ({"conversations": [{"from": "system", "value": "Be kind."}, *turns("What?", "It.")]}, "'from' is 'system'"),
        ({"conversations": turns("What?", " ")}, r"conversations\[1\]: 'value' is ' ', a str; expected a text"),
        ({"conversations": turns(3, "It.")}, r"conversations\[0\]: 'value' is 3, a int; expected a text"),
        ({"conversations": ["What?"]}, r"\[1\].conversations\[0\] is 'What\?', a str; expected an object"),
        ({"image": "1.png", "conversations": turns("<image>", "It.")}, "expected a question beside <image>"),
        ({"image": "1.png", "conversations": turns("<image><image>?", "It.")}, "each of the 1 pictures, or nowhere"),
        ({"conversations": turns("<image>?", "It.")}, "each of the 0 pictures, or nowhere, not 1 times"),
        (
            {"image": "gone.png", "conversations": turns("<image>?", "It.")},
            r"\[1\]: 'image' is 'gone.png', .*no gone",
        ),
        ({"image": 3, "conversations": turns("<image>?", "It.")}, r"\[1\]: 'image' is 3, a int; expected the path"),
        ({"image": ["1.png", None], "conversations": turns("?", "It.")}, r"\[1\]: 'image\[1\]' is missing"),
        ({"image": "1.png", "conversations": turns("\ud800 <image>?", "It.")}, "half a character"),
        (7, r"\[1\] is 7, a int; expected an object"),
    ],
)
def test_what_is_no_conversation_is_named(home, row, told):
    path = written(home, [ROWS[2], row])
    with pytest.raises(InputError, match=told) as caught:
        load_samples(f"llava:{path}")
    assert str(path) in str(caught.value)
