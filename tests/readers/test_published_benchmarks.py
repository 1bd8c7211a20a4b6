"""Benchmarks as they are published: what is taken from where, and every malformed row named."""

import subprocess
import sys
from pathlib import Path

import pytest
from published_layouts import BY_PREFIX, LAYOUTS

from clasp_calib.api.draws import draw_samples
from clasp_calib.calib.scoring.metrics import check_references
from clasp_calib.common.errors import InputError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.rules import load_rules
from clasp_calib.router_labeling.taxonomy import load_taxonomy

each = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.prefix)


@each
def test_a_row_becomes_a_sample(layout, tmp_path):
    source = layout.written(tmp_path)
    samples = load_samples(source)
    row = samples.table.to_pylist()[0]
    assert {column: row[column] for column in layout.wanted} == layout.wanted
    assert {sample.metric for sample in samples} == {layout.metric}
    assert samples[0].image == tmp_path / layout.pictures[0]
    assert load_samples(f"{layout.prefix}:{source}").table == samples.table
    assert load_samples(source, limit=1).table.to_pylist() == [row]
    for sample in samples:
        check_references(sample)


@each
def test_what_a_benchmark_adds_to_a_question_leaves_its_class(layout, tmp_path):
    rules = load_rules(None, load_taxonomy(None))
    for row in load_samples(layout.written(tmp_path)).table.to_pylist():
        bare = row.get("bare_question", row["question"])
        assert rules.match(row["question"]) == rules.match(bare)


@each
def test_samples_are_drawn_with_classes_of_a_column(layout, tmp_path):
    samples = load_samples(layout.written(tmp_path))
    drawn, counts = draw_samples(samples, per_class=1, class_from=layout.classes)
    assert set(counts.counts) == set(samples.table[layout.classes].to_pylist())
    assert len(drawn) >= 1
    assert {sample.split for sample in drawn} <= {"calibration", "selection", "test"}


@each
def test_pictures_may_lie_elsewhere_and_are_looked_for_by_name(layout, tmp_path):
    (tmp_path / "pictures").mkdir()
    source = layout.written(tmp_path)
    for name in {Path(name).parts[0] for name in layout.pictures}:
        (tmp_path / name).rename(tmp_path / "pictures" / name)
    samples = load_samples(source, image_root=tmp_path / "pictures")
    assert samples[0].image == tmp_path / "pictures" / layout.pictures[0]
    with pytest.raises(InputError, match=rf"{tmp_path} has no .*{Path(layout.pictures[0]).name}.*--image-root"):
        load_samples(source)
    # The directory that holds the pictures themselves.
    near = (tmp_path / "pictures" / layout.pictures[0]).parent
    if layout.prefix != "scienceqa":
        for name in layout.pictures:
            (tmp_path / "pictures" / name).rename(near / Path(name).name)
        assert load_samples(source, image_root=near)[0].image == near / Path(layout.pictures[0]).name


def put(path, value):
    """A change of content: the value at a path of keys and numbers; ``del`` takes it away."""

    def change(files):
        inner = files
        for key in path[:-1]:
            inner = inner[key]
        if value == "del":
            del inner[path[-1]]
        else:
            inner[path[-1]] = value(inner[path[-1]]) if callable(value) else value

    return change


Q, A, G, P, S = (
    "questions.json",
    "annotations.json",
    "val_balanced_questions.json",
    "problems.json",
    "pid_splits.json",
)
T, D, C = "TextVQA_0.5.1_val.json", "val_v1.0_withQT.json", "captions_val2014.json"
TWICE = lambda items: [*items, items[0]]  # noqa: E731
WRONG = [
    # Missing fields, wrong types, blanks.
    (
        "vqav2",
        (Q, "questions", 1, "question"),
        "del",
        r"questions\[1\] has no 'question' \(it has image_id, question_id",
    ),
    ("vqav2", (Q, "questions", 1, "question"), " ", r"questions\[1\]: 'question' is ' ', a str; expected a text"),
    ("vqav2", (Q, "questions", 1, "image_id"), "a.jpg", r"questions\[1\]: 'image_id' is 'a.jpg'.* a whole number"),
    ("vqav2", (Q, "questions", 1, "question_id"), None, r"questions\[1\]: 'question_id' is missing"),
    ("vqav2", (Q, "questions", 1), "text", r"questions\[1\] is 'text', a str; expected an object"),
    ("vqav2", (Q, "questions"), "del", "has no key 'questions'"),
    ("vqav2", (A, "annotations", 0, "answers"), [], r"annotations\[0\]: 'answers' is \[\].*a list of objects"),
    ("vqav2", (A, "annotations", 0, "answers", 3, "answer"), 4, r"annotations\[0\].answers\[3\]: 'answer' is 4, a int"),
    ("vqav2", (A, "annotations", 0, "answers", 3), "net", r"annotations\[0\].answers\[3\] is 'net', a str; .* object"),
    ("vqav2", (A, "annotations", 0, "question_type"), 4, r"annotations\[0\]: 'question_type' is 4"),
    ("vqav2", (A, "annotations", 3, "image_id"), 7, r"questions\[0\]: 'image_id' is 458752.*expected 7, as in .*\[3\]"),
    # Questions without annotations, annotations without questions, duplicates.
    ("vqav2", (A, "annotations", 0), "del", r"questions\[3\]: 'question_id' is 262148001.*annotations.json has an ann"),
    ("vqav2", (Q, "questions", 0), "del", r"annotations\[3\] is of the question 458752000.*questions.json has not"),
    ("vqav2", (Q, "questions"), TWICE, r"questions\[4\]: 'question_id' is 458752000.*another one in each row"),
    ("vqav2", (A, "annotations"), TWICE, r"annotations\[4\]: 'question_id'.*another one in each row"),
    ("gqa", (G, "07333408", "question"), "del", r"\['07333408'\] has no 'question'"),
    ("gqa", (G, "07333408", "imageId"), None, r"\['07333408'\]: 'imageId' is missing"),
    ("gqa", (G, "07333408", "answer"), "del", r"\['07333408'\] has no 'answer'.*test and challenge have none"),
    ("gqa", (G, "07333408", "answer"), True, r"\['07333408'\]: 'answer' is True, a bool"),
    ("gqa", (G, "07333408", "types"), ["query"], r"\['07333408'\].types is \['query'\], a list; expected an object"),
    ("gqa", (G, "07333408", "groups", "global"), 3, r"\['07333408'\].groups: 'global' is 3, a int"),
    ("gqa", (G, "07333408"), "red", r"\['07333408'\] is 'red', a str; expected an object"),
    ("scienceqa", (P, "2", "choices"), [], r"\['2'\]: 'choices' is \[\]"),
    ("scienceqa", (P, "2", "choices", 1), 3, r"\['2'\]: 'choices\[1\]' is 3, a int; expected a text"),
    ("scienceqa", (P, "2", "choices"), ["no"] * 27, r"\['2'\] has 27 choices; expected no more than the 26 letters"),
    ("scienceqa", (P, "2", "answer"), 2, r"\['2'\]: 'answer' is 2.*the number of a choice, from 0 to 1"),
    ("scienceqa", (P, "2", "answer"), "B", r"\['2'\]: 'answer' is 'B'.*the number of a choice, from 0 to 1"),
    ("scienceqa", (P, "2", "question"), "del", r"\['2'\] has no 'question'"),
    ("scienceqa", (P, "2", "hint"), 5, r"\['2'\]: 'hint' is 5, a int"),
    ("scienceqa", (P, "2", "image"), {}, r"\['2'\]: 'image' is {}, a dict"),
    ("scienceqa", (P, "2", "image"), "choice.png", "has no images/val/2/choice.png nor images/2/choice.png nor val/2/"),
    ("textvqa", (T, "data", 1, "question"), "del", r"data\[1\] has no 'question'"),
    (
        "textvqa",
        (T, "data", 1, "image_id"),
        "gone",
        "has no train_images/gone.jpg nor test_images/gone.jpg nor gone.jpg",
    ),
    ("textvqa", (T, "data", 1, "answers"), "del", r"data\[1\] has no 'answers'.*the file test has none"),
    ("textvqa", (T, "data", 1, "answers", 2), "", r"data\[1\]: 'answers\[2\]' is '', a str"),
    (
        "textvqa",
        (T, "data", 1, "question_id"),
        34602,
        r"data\[1\]: 'question_id' is 34602.*another one in each row .*data\[0\] has it",
    ),
    ("textvqa", (T, "data", 1), None, r"data\[1\] is missing; expected an object"),
    ("docvqa", (D, "data", 1, "question"), "del", r"data\[1\] has no 'question'"),
    (
        "docvqa",
        (D, "data", 1, "answers"),
        "0.28",
        r"data\[1\]: 'answers' is '0.28', a str; expected the accepted texts",
    ),
    ("docvqa", (D, "data", 1, "image"), "del", r"data\[1\] has no 'image'"),
    ("docvqa", (D, "data", 1, "question_types"), [1], r"data\[1\]: 'question_types\[0\]' is 1, a int"),
    (
        "docvqa",
        (D, "data", 1, "questionId"),
        49153,
        r"data\[1\]: 'questionId' is 49153.*another one in each row .*data\[0\] has it",
    ),
    ("coco", (C, "images", 1, "file_name"), "del", r"images\[1\] has no 'file_name'"),
    (
        "coco",
        (C, "images", 1, "id"),
        391895,
        r"images\[1\]: 'id' is 391895.*another one in each row .*images\[0\]",
    ),
    ("coco", (C, "images", 1, "id"), "del", r"images\[1\] has no 'id'"),
    ("coco", (C, "images", 1, "id"), 7, r"annotations\[0\]: 'image_id' is 203564.*the id of one of the images"),
    ("coco", (C, "annotations", 2, "id"), 37, r"annotations\[2\]: 'id' is 37.*another one in each row "),
    ("coco", (C, "annotations", 0, "caption"), "del", r"annotations\[0\] has no 'caption'.*give captions_\*.json"),
    ("coco", (C, "annotations", 0, "caption"), " ", r"annotations\[0\]: 'caption' is ' ', a str"),
    (
        "coco",
        (C, "annotations"),
        lambda items: items[::2],
        r"images\[0\]: 'id' is 391895.*a picture that has a caption",
    ),
    ("coco", (C, "annotations"), "del", "has no key 'annotations'"),
]


@pytest.mark.parametrize(("prefix", "path", "value", "told"), WRONG)
def test_what_is_malformed_is_named(prefix, path, value, told, tmp_path):
    source = BY_PREFIX[prefix].written(tmp_path, put(path, value))
    with pytest.raises(InputError, match=told) as raised:
        load_samples(f"{prefix}:{source}")
    assert path[0] in str(raised.value)


def test_questions_of_vqav2_need_their_annotations(tmp_path):
    source = BY_PREFIX["vqav2"].written(tmp_path).split("+")
    with pytest.raises(InputError, match=r"names 1 files; expected 2: QUESTIONS.json\+ANNOTATIONS.json"):
        load_samples(source[0])
    with pytest.raises(InputError, match=r"annotations\.json has no key 'questions' "):
        load_samples("vqav2:" + "+".join(reversed(source)))


def test_types_of_questions_of_docvqa_may_be_several_or_lack(tmp_path):
    samples = load_samples(BY_PREFIX["docvqa"].written(tmp_path))
    assert samples.table["question_type"].to_pylist() == ["figure/diagram", "form + handwritten"]
    for change in ("del", []):
        source = BY_PREFIX["docvqa"].written(tmp_path, put((D, "data", 1, "question_types"), change))
        assert load_samples(source).table["question_type"].to_pylist() == ["figure/diagram", None]


def test_scienceqa_is_read_by_directory_and_by_split(tmp_path):
    BY_PREFIX["scienceqa"].written(tmp_path)
    whole = load_samples(tmp_path)
    assert [sample.id for sample in whole] == ["1", "2", "11"]
    assert whole[1].question.startswith("Context: Look at the picture.\nIs sand a gas?\nA. yes\nB. no\nAnswer with")
    assert [sample.media for sample in whole][2] == ()
    assert [sample.id for sample in load_samples(tmp_path / "problems.json", dataset_split="minival")] == ["2"]
    named = load_samples(f"scienceqa:{tmp_path}:train")
    assert [(sample.id, sample.image) for sample in named] == [("1", tmp_path / "images/train/1/image.png")]
    assert [sample.id for sample in load_samples(f"scienceqa:{tmp_path}::img")] == ["1", "2"]
    with pytest.raises(InputError, match="expected scienceqa:DIRECTORY, :SPLIT and :img, in this order"):
        load_samples(f"scienceqa:{tmp_path}:img:train")
    with pytest.raises(InputError, match="names the split 'train', and the dataset split is 'test'; give one"):
        load_samples(f"scienceqa:{tmp_path}:train", dataset_split="test")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"test": ["11", "12"]}, r"pid_splits.json: test\[1\] is '12', and .*problems.json has no such problem"),
        ({"test": ["11", 11]}, r"pid_splits.json: test\[1\] is '11', as is .*test\[0\]; name each problem once"),
        ({"test": ["11", None]}, r"pid_splits.json: test\[1\]: 'id' is missing"),
        ({"train": ["11"]}, r"pid_splits.json has no key 'test' \(it has train\)"),
    ],
)
def test_splits_of_scienceqa_that_are_none_are_named(content, told, tmp_path):
    BY_PREFIX["scienceqa"].written(tmp_path, put(("pid_splits.json",), content))
    with pytest.raises(InputError, match=told):
        load_samples(tmp_path, dataset_split="test")


def test_a_split_of_scienceqa_without_its_file_is_refused(tmp_path):
    BY_PREFIX["scienceqa"].written(tmp_path)
    (tmp_path / "pid_splits.json").unlink()
    with pytest.raises(InputError, match=r"cannot read the file pid_splits.json .*pid_splits.json"):
        load_samples(tmp_path, dataset_split="test")


@pytest.mark.parametrize("turned", [False, True])
def test_annotations_take_little_memory_in_any_order(turned, tmp_path):
    layout, several = BY_PREFIX["vqav2"], range(10_000)

    def many(files):
        for name, rows in (("questions.json", "questions"), ("annotations.json", "annotations")):
            files[name][rows] = [files[name][rows][0] | {"question_id": n, "image_id": 458752} for n in several]
        files["questions.json"]["questions"].sort(key=lambda row: row["question_id"], reverse=turned)

    # In a process of its own: a large one grows by megabytes on its own, for the table of its names.
    code = (
        "import sys, tracemalloc\n"
        "from clasp_calib.common.sample_readers import SampleSource\n"
        "from clasp_calib.readers.vqav2_questions import Vqav2Reader\n"
        "tracemalloc.start()\n"
        "rows = sum(1 for _ in Vqav2Reader().rows(SampleSource(sys.argv[1])))\n"
        "print(rows, tracemalloc.get_traced_memory()[1])"
    )
    words = [sys.executable, "-c", code, layout.written(tmp_path, many)]
    rows, peak = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert rows == len(several)
    # Held as JSON has them, they would be 35 MB.
    assert peak < 14 << 20
