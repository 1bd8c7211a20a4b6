"""POPE: yes or no about objects in pictures of COCO."""

import pytest
from readers.published import json_lines, picture_at

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples

ROWS = [
    {
        "question_id": 1,
        "image": "COCO_val2014_000000000042.jpg",
        "text": "Is there a cat in the image?",
        "label": "yes",
    },
    {"question_id": 2, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a bus in the image?", "label": "no"},
]


def written(tmp_path, *rows, name="coco_pope_popular.json"):
    picture_at(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")
    return json_lines(tmp_path / name, list(rows))


def test_questions_labels_and_the_kind_that_the_name_says(tmp_path):
    path = written(tmp_path, *ROWS)
    for given in (path, f"pope:{path}"):
        samples = load_samples(given, image_root=tmp_path / "val2014")
        first = samples[0]
        assert (first.id, first.answers, first.metric) == ("1", ("yes",), "pope")
        assert first.question == "Is there a cat in the image?\nAnswer the question using a single word or phrase."
        assert first.picture.is_file()
        assert samples.table["bare_question"].to_pylist() == [row["text"] for row in ROWS]
        assert samples.table["category"].to_pylist() == ["popular", "popular"]


def test_the_suffix_stands_once_and_a_category_of_the_file_passes(tmp_path):
    suffixed = {**ROWS[0], "text": f"{ROWS[0]['text']}\nAnswer the question using a single word or phrase."}
    path = written(tmp_path, {**suffixed, "category": "random"}, name="mine.jsonl")
    samples = load_samples(path, image_root=tmp_path / "val2014")
    assert samples[0].question == suffixed["text"]
    assert samples.table["bare_question"].to_pylist() == [ROWS[0]["text"]]
    assert samples.table["category"].to_pylist() == ["random"]


def test_pictures_lie_beside_the_questions_or_in_the_folder_of_cocos_archive(tmp_path):
    samples = load_samples(written(tmp_path, *ROWS), image_root=tmp_path)
    assert samples[0].picture == tmp_path / "val2014" / "COCO_val2014_000000000042.jpg"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**ROWS[1], "label": "maybe"}, "line 2: 'label' is 'maybe', a str; expected yes or no"),
        ({k: v for k, v in ROWS[1].items() if k != "label"}, "line 2 has no 'label' .*questions alone lack it"),
        ({**ROWS[1], "text": " "}, "line 2: 'text' is ' '"),
        ({**ROWS[1], "text": None}, "line 2: 'text' is missing"),
        ({**ROWS[1], "question_id": 1.5}, "line 2: 'question_id' is 1.5, a float"),
        (
            {**ROWS[1], "image": "gone.jpg"},
            "line 2: 'image' is 'gone.jpg', a str, and .*val2014 has no gone.jpg",
        ),
        ({**ROWS[1], "image": 42}, "line 2: 'image' is 42, a int; expected the name of a picture"),
        ({**ROWS[1], "question_id": 1}, "the id '1' more than once"),
        ([1], r"line 2 is \[1\], a list; expected an object"),
    ],
)
def test_what_is_no_row_is_named(row, told, tmp_path):
    path = written(tmp_path, ROWS[0], row)
    with pytest.raises(InputError, match=told):
        load_samples(f"pope:{path}", image_root=tmp_path / "val2014")
