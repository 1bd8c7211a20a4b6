"""Ten thousand questions by the embedding: killed in the middle, nothing is asked twice and nothing is lost."""

import json

import pytest
from test_killed import killed

from clasp_calib.common.sample_sources import load_samples
from clasp_calib.router_labeling.embedding_labeler import CHUNK, EmbeddingLabeler
from clasp_calib.router_labeling.labelers import load_scheme
from tools.labels.train import pool_questions

MANY = 10_000


@pytest.mark.slow
def test_ten_thousand_questions_killed_in_the_middle(tmp_path, command):
    pytest.importorskip("onnxruntime")
    questions = [row.question for row in pool_questions(6, 0)][:MANY]
    assert len(questions) == MANY
    table = tmp_path / "questions.jsonl"
    table.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    words = ["label", table, "--run", tmp_path, "--backend", "embedding"]

    def answered():
        return sum(path.read_bytes().count(b"\n") for path in (tmp_path / "labelling").glob("*.jsonl"))

    before = killed(words, answered, CHUNK + 100)
    assert CHUNK < before < MANY
    ended = command(*words)
    assert "were answered before" in ended.err
    assert answered() == MANY + 1, "a head and one line a question"
    rows = load_samples(tmp_path / "labels.parquet").table.select(["question", "intent", "source"]).to_pylist()
    assert [row["question"] for row in rows] == questions
    assert {row["source"] for row in rows} == {"embedding", "rule"}
    some = [row for row in rows[::50] if row["source"] == "embedding"]
    anew = dict(EmbeddingLabeler().ask([row["question"] for row in some], load_scheme()))
    assert [row["intent"] for row in some] == [anew[place].intent for place in range(len(some))]
