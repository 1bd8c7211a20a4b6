"""Labels from Python: the same as from the command line, with a run directory and without."""

from collections.abc import Iterator, Sequence

import pytest
from fake_llm_server import GOOD, Fake, reply, running
from PIL import Image
from speaking_models import write_picture

from clasp_calib.api.draws import draw_samples
from clasp_calib.api.labelling import KeywordLabeler, ServerLabeler, VLLMLabeler, label, label_report
from clasp_calib.api.routers import train_router
from clasp_calib.cli import run
from clasp_calib.common.errors import InputError, LabelerError
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import Sample
from clasp_calib.router_labeling.labelers import Guess, Scheme

RED = Image.new("RGB", (8, 6), "red")
QUESTIONS = [
    Sample("a", "How many dogs are there?", RED),
    Sample("b", "What does the sign say?", "sign.png"),
    Sample("c", "Hm?", label="scene"),
]

OWN = """
version: 1
classes: [more, less]
default_intent: choice
intents:
  number: {class: more, definition: Asks how many there are., examples: ["dogs?", "cups?", "cars?"]}
  choice: {class: less, definition: Asks which it is., examples: ["a dog?", "a cup?", "a car?"]}
"""


def test_keyword_labels_need_neither_a_model_nor_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled = label(QUESTIONS)
    assert [(s.id, s.label, s.intent) for s in labelled] == [
        ("a", "counting", "counting"),
        ("b", "text", "text_recognition"),
        ("c", "scene", None),
    ]
    assert labelled[0].picture == QUESTIONS[0].picture
    assert labelled.table["source"].to_pylist() == ["rule", "rule", "gold"]
    assert not list(tmp_path.iterdir())
    assert label(labelled).table.equals(labelled.table)
    assert label(QUESTIONS, labeler=KeywordLabeler()).table.equals(labelled.table)
    assert [s.label for s in label(QUESTIONS, relabel=True)] == ["counting", "text", "default"]


def test_a_run_directory_keeps_labels_and_report_as_the_command_does(tmp_path):
    labelled = label(QUESTIONS, run=tmp_path / "run")
    written = load_samples(tmp_path / "run" / "labels.parquet")
    assert written.table.equals(labelled.table)
    assert labelled.digest == written.digest
    assert labelled[0].picture.is_file()
    load_samples(QUESTIONS).save(tmp_path / "questions.parquet")
    assert run(["label", str(tmp_path / "questions.parquet"), "--run", str(tmp_path / "other")]) == 0
    assert (
        load_samples(tmp_path / "other" / "labels.parquet")
        .table.drop_columns("image")
        .equals(written.table.drop_columns("image"))
    )
    for name in ("labels.parquet", "samples.parquet", "report/labels.md", "config.json"):
        assert (tmp_path / "run" / name).is_file()
        assert (tmp_path / "other" / name).is_file()


def test_labels_may_go_elsewhere(tmp_path):
    label(QUESTIONS, out=tmp_path / "labels.jsonl")
    assert [s.label for s in load_samples(tmp_path / "labels.jsonl")] == ["counting", "text", "scene"]
    with pytest.raises(InputError, match=r"it ends in '\.txt'"):
        label(QUESTIONS, out=tmp_path / "labels.txt")


def test_a_servers_answers_are_kept_under_the_run(tmp_path):
    with running(Fake(lambda q, t: reply("?") if "sign" in q else GOOD)) as fake:
        labeler = ServerLabeler(fake.url, backoff=0.01)
        first = label(QUESTIONS, labeler=labeler, run=tmp_path / "run")
        asked = fake.asked.total()
        again = label(QUESTIONS, labeler=labeler, run=tmp_path / "run")
        assert fake.asked.total() == asked == 4
        label(QUESTIONS, labeler=labeler, run=tmp_path / "run", retry_failed=True)
        assert fake.asked.total() == 7
        assert [s.label for s in label(QUESTIONS, labeler=labeler)] == [s.label for s in first]
    assert again.table.equals(first.table)
    report = label_report(again)
    assert list(report.failed) == []  # a rule says what the model could not
    assert report.overridden == {("default", "text"): 1, ("counting", "counting"): 1}
    assert "rules corrected 2 intents that the model gave, and so the class of 1 questions" in str(report)
    assert "<caption>What rules made of the model" in report._repr_html_()


class Everything:
    """A labeler of one's own."""

    def fingerprint(self, scheme: Scheme) -> str:
        return '{"labeler":"everything"}'

    def ask(self, questions: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, Guess]]:
        for index in reversed(range(len(questions))):
            yield index, Guess("counting", None, questions[index])


def test_a_labeler_of_ones_own(tmp_path):
    samples = [*QUESTIONS[:1], Sample("d", "Hm?")]
    for place in (None, tmp_path):
        labelled = label(samples, labeler=Everything(), run=place)
        assert labelled.table["raw"].to_pylist() == [sample.question for sample in samples]
        assert {sample.label for sample in labelled} == {"counting"}


def test_constructing_a_labeler_needs_nothing_and_using_it_says_what_is_missing():
    with pytest.raises(LabelerError, match=r"no OpenAI-compatible server answers at http://127\.0\.0\.1:9/v1"):
        label(QUESTIONS, labeler=ServerLabeler("http://127.0.0.1:9/v1"))
    assert VLLMLabeler("Qwen/Qwen3-8B").chunk == 512
    assert "secret" not in repr(ServerLabeler("http://x/v1", api_key="secret"))


def test_a_report_needs_labels():
    with pytest.raises(InputError, match="the samples have no column 'intent'; label them first"):
        label_report([{"question": "?"}])


def test_a_taxonomy_of_one_s_own_needs_no_rules_where_none_are_used(tmp_path):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(OWN, encoding="utf-8")
    questions = [f"{word} {number}?" for word in ("how many", "which one") for number in range(12)]
    rows = [
        {
            "id": str(n),
            "question": q,
            "image": str(write_picture(tmp_path / f"{n}.png", n)),
            "class": "more" if "many" in q else "less",
            "intent": "number",
        }
        for n, q in enumerate(questions)
    ]
    drawn, _ = draw_samples(rows, taxonomy=path, per_class=4)
    assert {sample.label for sample in drawn} == {"more", "less"}
    assert train_router(rows, taxonomy=path).router.classes == ("more", "less")
    labelled = [row | {"confidence": 1.0, "source": "gold", "rule": None, "raw": None, "labeler": None} for row in rows]
    assert "more" in label_report(labelled, taxonomy=str(path)).to_markdown()
