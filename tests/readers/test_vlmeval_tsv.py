"""VLMEvalKit's TSV: pictures in base64, prompts as its datasets build them."""

import base64
import csv
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from readers.published import base64_of, picture_at

from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples

RED, BLUE = base64_of("red"), base64_of("blue")
CHOICES = [
    {"index": 1, "image": 3, "question": 'Is "it"\tgood?\nSay.', "A": "yes", "B": "no", "answer": "A", "split": "dev"},
    {
        "index": 2,
        "image": str([RED, BLUE]),
        "question": "Which?",
        "hint": "Look.",
        "A": "x",
        "B": "y",
        "C": "z",
        "answer": "C",
    },
    {"index": 3, "image": RED, "question": "How many?", "A": "1", "B": "2", "answer": "B", "category": "count"},
    {"index": 4, "question": "What is 1 + 1?", "answer": "two"},
]


def written(path: Path, rows, columns=None) -> Path:
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("prefix", ["", "vlmeval:"])
def test_choices(tmp_path, prefix):
    path = written(tmp_path / "mine.tsv", CHOICES)
    samples = load_samples(f"{prefix}{path}", pictures=tmp_path / "pictures")
    assert samples.table["question"].to_pylist() == [
        'Question: Is "it"\tgood?\nSay.\nOptions:\nA. yes\nB. no\n'
        "Please select the correct answer from the options above. \n",
        "Hint: Look.\nQuestion: Which?\nOptions:\nA. x\nB. y\nC. z\n"
        "Please select the correct answer from the options above. \n",
        "Question: How many?\nOptions:\nA. 1\nB. 2\nPlease select the correct answer from the options above. \n",
        "Question: What is 1 + 1?\n",
    ]
    assert samples.table["bare_question"].to_pylist() == [row["question"] for row in CHOICES]
    assert [one.metric for one in samples] == ["multiple_choice"] * 3 + ["exact"]
    assert [one.answers for one in samples] == [("A",), ("C",), ("B",), ("two",)]
    assert [len(one.media) for one in samples] == [1, 2, 1, 0]
    assert samples[0].media == samples[2].media == samples[1].media[:1]
    assert {Image.open(path).getpixel((0, 0))[0] for path in samples[1].media} == {255, 0}
    assert samples.table["category"].to_pylist() == [None, None, "count", None]
    assert samples.table["benchmark_split"].to_pylist() == ["dev", None, None, None]
    assert "split" not in samples.table.column_names
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_the_first_rows_alone_have_the_picture_of_a_later_one(tmp_path):
    samples = load_samples(written(tmp_path / "mine.tsv", CHOICES), limit=1)
    assert len(samples) == len(samples.held) == 1


@pytest.mark.parametrize(
    ("name", "answers", "asked", "metric"),
    [
        ("mine", ["Yes", "no"], "{}", "yes_no"),
        ("mine", ["Yes", "3"], "{}", "exact"),
        ("mine", [None, None], "{}", "exact"),
        ("MME", ["Yes", "No"], "{}", "mme"),
        ("POPE", ["Yes", "No"], "{}", "pope"),
        ("HallusionBench", ["Yes", "No"], "{}", "yes_no"),
        ("AMBER", ["Yes", "No"], "{}\nPlease answer yes or no.", "yes_no"),
        ("TextVQA_VAL", ["['a', 'b']", "c"], "{}\nAnswer the question using a single word or phrase.", "textvqa"),
        ("DocVQA_VAL", ["a", "b"], "{}\nAnswer the question using a single word or phrase.", "anls"),
        ("ChartQA_TEST", ["3", "b"], "{}\nAnswer the question using a single word or phrase.", "relaxed"),
        ("GQA_TestDev_Balanced", ["yes", "b"], "{}\nAnswer the question using a single word or phrase.", "exact_match"),
    ],
)
def test_benchmarks_without_options(tmp_path, name, answers, asked, metric):
    rows = [{"index": n, "image": RED, "question": f"What {n}?", "answer": one} for n, one in enumerate(answers)]
    samples = load_samples(written(tmp_path / f"{name}.tsv", rows))
    assert [one.question for one in samples] == [asked.format("What 0?"), asked.format("What 1?")]
    assert {one.metric for one in samples} == {metric}
    if name == "TextVQA_VAL":
        assert samples[0].answers == ("a", "b")


@pytest.mark.parametrize(("name", "answer", "noted"), [("unheard", "a", True), ("ChartQA_TEST", "a", False)])
def test_a_benchmark_that_is_not_known_is_said_to_be_scored_by_exact(tmp_path, capsys, name, answer, noted):
    load_samples(written(tmp_path / f"{name}.tsv", [{"index": 1, "image": RED, "question": "What?", "answer": answer}]))
    told = f"the benchmark {name} has no options, and how it is scored is not known"
    assert (told in capsys.readouterr().err) is noted


def test_the_pictures_of_mmmu_stand_where_it_has_them(tmp_path):
    row = {"image": str([RED, BLUE]), "A": "<image 1>", "B": "y", "answer": "B"}
    rows = [{"index": 1, "question": "Is <image 2> like <image 1>?", **row}, {"index": 2, "question": "Which?", **row}]
    samples = load_samples(written(tmp_path / "MMMU_DEV_VAL.tsv", rows))
    red, blue = samples[0].media[1], samples[0].media[0]
    assert samples[0].media == (blue, red, red)
    assert samples[0].question.startswith("Question: Is <image> like <image>?\nOptions:\nA. <image>\n")
    assert samples[1].media == (red,)
    rows[0]["question"] = "Is <image 3> red?"
    with pytest.raises(InputError, match=r"line 2: 'question' is .*; expected places of the 2 pictures"):
        load_samples(written(tmp_path / "MMMU_DEV_VAL.tsv", rows))


def test_paths_of_pictures(tmp_path):
    picture_at(tmp_path / "pics" / "a.png")
    rows = [
        {"index": 1, "image_path": "a.png", "question": "What?"},
        {"index": 2, "image_path": "['a.png', 'a.png']", "question": "What?"},
    ]
    path = written(tmp_path / "mine.tsv", rows)
    assert [len(one.media) for one in load_samples(path, image_root=tmp_path / "pics")] == [1, 2]
    with pytest.raises(InputError, match=r"mine.tsv: line 2: 'image_path' is 'a.png', a str, and .* has no a.png"):
        load_samples(path)


GOOD = {"index": 1, "image": RED, "question": "What?", "A": "x", "B": "y", "answer": "A"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"index": ""}, "line 3 has no 'index'"),
        ({"index": 1}, "line 3: the index '1' is that of .*line 2 too"),
        ({"question": ""}, "line 3 has no 'question'"),
        ({"question": " "}, "line 3: 'question' is ' '"),
        ({"image": "7"}, r"line 3: 'image' is '7', a str; expected a picture in base64, or \(up to 64"),
        ({"image": "2"}, "line 3, whose image names the row '2': 'image' is '2', .*may name no other"),
        ({"image": RED[:-3]}, "line 3: 'image' is .*; expected a picture in base64"),
        ({"image": "*" * 80}, "line 3: 'image' is .*; expected a picture in base64"),
        ({"image": str([RED, 3])}, "line 3: 'image' is .*; expected one text, or a printed list"),
        ({"image": f"[{RED}]"}, "line 3: 'image' is .*; expected one text, or a printed list"),
        ({"image": "QUJD" * 30}, "holds a picture that cannot be read .* in row 1"),
        ({"answer": "[1, 2]"}, r"line 3: 'answer' is '\[1, 2\]', a str; expected the letter of an option"),
        ({"answer": "C"}, "line 3: 'answer' is 'C', a str; expected the letter of an option that the row has: A, B"),
        ({"answer": "z"}, "line 3: 'answer' is 'z'"),
        ({"answer": "AB"}, "line 3: 'answer' is 'AB'"),
        ({"A": "", "B": "", "answer": "[1, 2]"}, "row 1: column 'answers': the text .* looks like the printed form"),
    ],
)
def test_what_is_no_row_is_named(tmp_path, row, told):
    path = written(tmp_path / "mine.tsv", [GOOD, {**GOOD, "index": 2, **row}])
    with pytest.raises(InputError, match=told) as caught:
        load_samples(path, pictures=tmp_path / "pictures")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"index\timage\tquestion\n1\tx\n", "line 2 has 2 cells, and the header 3 columns"),
        (b"index\timage\tquestion\n1\tx\ty\tz\n", "line 2 has 4 cells"),
        (b'index\timage\tquestion\n1\tx\t"y\n2\tx\ty\n', "line 2: unexpected end of data"),
        (b"index\timage\tquestion\n1\tx\t\xff\n", "line 2 is not UTF-8"),
        (b"index\timage\timage\n", "line 1: the columns are index, image, image; expected different names"),
        (b"index,image,question\n", "line 1: the columns are index,image,question; expected different names"),
        (b"", "line 1: the columns are none"),
        (b"index\tquestion\n1\tWhat?\n", "has no column 'image'"),
        (b"image\tquestion\n1\tWhat?\n", "has no column 'index'"),
        (b"index\timage\tquestion\n", "holds no rows"),
    ],
)
def test_what_is_no_tsv_is_named(tmp_path, text, told):
    path = tmp_path / "mine.tsv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=told):
        load_samples(f"vlmeval:{path}")


def test_pictures_are_never_held_together(tmp_path):
    noise = Image.effect_noise((300, 300), 90)
    rows = []
    for number in range(120):
        noise.putpixel((0, 0), number)
        noise.save(tmp_path / "one.png")
        text = base64.b64encode((tmp_path / "one.png").read_bytes()).decode()
        rows.append({"index": number, "image": text, "question": "What?", "answer": "it"})
    path = written(tmp_path / "mine.tsv", rows)
    size = path.stat().st_size
    assert size > 10 << 20
    del rows, text
    tracemalloc.start()
    assert len(load_samples(path, pictures=tmp_path / "pictures")) == 120
    assert tracemalloc.get_traced_memory()[1] < size // 4
    tracemalloc.stop()
