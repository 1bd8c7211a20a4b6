"""The model ``clasp`` in lmms-eval itself: scores are those of `evaluate`, and errors are no empty answers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import clasp_calib as cc
from clasp_calib.common.errors import ClaspError, InputError

pytestmark = pytest.mark.harness


def answers(found, task="embedded"):
    return [sample["filtered_resps"][0] for sample in found["samples"][task]]


def exact(found, task="embedded"):
    return [sample["exact"] for sample in found["samples"][task]]


@pytest.fixture(scope="module")
def pruned(scored, harnessed):
    return scored("embedded", f",artifact={harnessed.artifact},budget=48", batch_size=4)


def test_clasp_is_listed():
    from lmms_eval.models import get_model_manifest, list_available_models

    assert "clasp" in list_available_models()
    assert get_model_manifest("clasp").chat_class_path.startswith("clasp_calib.harness.")


def test_pruned_scores_are_those_of_evaluate(pruned, harnessed):
    assert exact(pruned) == harnessed.scores("calibrated") != harnessed.scores("unpruned")


def test_unpruned_scores_are_those_of_evaluate(scored, harnessed):
    assert exact(scored("embedded", batch_size=4)) == harnessed.scores("unpruned")


def test_answers_do_not_depend_on_the_batch_or_the_kind_of_task(pruned, scored, harnessed):
    alone = scored("embedded", f",artifact={harnessed.artifact}", simple=True)
    assert answers(alone) == answers(pruned)
    assert len(set(answers(pruned))) > 3


def test_a_peer_answers_as_in_a_comparison(scored, harnessed, loaded):
    options = cc.ComparisonOptions(timed=0, mixture=False, per_class=1)
    compared = cc.compare(*loaded, harnessed.artifact, harnessed.samples, "fastv", options=options)
    contest = compared.contest
    (peer,) = [entrant for entrant in contest.entrants if entrant.method == "fastv"]
    said = {sample.id: contest.answers[peer.asked(sample, 0)].text for sample in contest.samples}
    found = scored("embedded", ",method=fastv,budget=48", batch_size=4)
    given = dict(zip([row["id"] for row in harnessed.rows], answers(found), strict=True))
    assert {name: given[name] for name in said} == said
    assert len(said) > 5


def test_classes_are_those_of_questions_without_their_prompts(scored, harnessed, monkeypatch):
    from clasp_calib.harness import token_record

    kept = []
    monkeypatch.setattr(token_record.TokenRecord, "say", lambda record: kept.extend(record.requests))
    scored("instructed", f",artifact={harnessed.artifact}", batch_size=4)
    assert [request.label for request in kept] == [row["class"] for row in harnessed.rows]
    assert {request.label for request in kept} > {"counting"}


def test_the_likeliest_answer_has_the_smallest_loss(scored, harnessed, loaded):
    found = scored("likely", f",artifact={harnessed.artifact}", simple=True, limit=6)
    sample = found["samples"]["likely"][0]
    losses = [loss for loss, _ in sample["filtered_resps"]]
    assert sample["acc"] == (losses.index(min(losses)) == sample["target"])
    whole = scored("likely", simple=True, limit=1)["samples"]["likely"][0]["filtered_resps"]
    first = sorted({harnessed.rows[0]["answers"][0], "yes", "no", "red", "two"})[0]
    assert whole[0][0] == pytest.approx(loss_of(loaded, harnessed, first))
    assert losses != [loss for loss, _ in whole]
    assert sum(greedy for _, greedy in whole) <= 1


def loss_of(loaded, harnessed, answer):
    """Mean loss of an answer to the first question by transformers alone."""
    model, processor = loaded
    row = harnessed.rows[0]
    picture = cc.load_picture(harnessed.tasks.parent / "benchmark" / row["image"], processor)
    prompt = f"USER: <image>\n{row['question']} ASSISTANT:"
    both, alone = (
        processor(images=[picture], text=text, return_tensors="pt") for text in (f"{prompt} {answer}", prompt)
    )
    labels = both["input_ids"].clone()
    labels[:, : alone["input_ids"].shape[1]] = -100
    with torch.no_grad():
        return float(model(**both, labels=labels).loss)


@pytest.mark.parametrize("simple", [False, True])
def test_rounds_follow_one_another(simple, scored, harnessed, pruned):
    found = scored("rounds", f",artifact={harnessed.artifact}", batch_size=4, simple=simple, limit=8)
    said = [sample["filtered_resps"][0] for sample in found["samples"]["rounds"]]
    assert said == [[answer, answer] for answer in answers(pruned)[:8]]


def test_a_task_that_is_given_as_settings_is_asked_by_a_chat_model_too(scored, harnessed, pruned):
    from lmms_eval.utils import load_yaml_config

    task = load_yaml_config(str(harnessed.tasks / "embedded.yaml"), mode="full")
    found = scored([task], f",artifact={harnessed.artifact}", batch_size=4, limit=4)
    assert answers(found) == answers(pruned)[:4]


def test_an_error_is_raised_and_no_empty_answer(scored):
    with pytest.raises(InputError, match=r"document \d+ of the task broken shows a dict with array, sampling_rate"):
        scored("broken", batch_size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",budgt=48", r"no option 'budgt' \(did you mean budget\?\); the options of clasp are pretrained, artifact,"),
        (",artifact={artifact},budget=77", r"holds no budget '77' \(it holds 48\)"),
        (",artifact={artifact},classes=sky", "knows no class 'sky'; expected one of object, attribute,"),
        (",method=nope,budget=48", "no method 'nope'; choose from default, random, random-input,"),
        (",method=fastv", "method=fastv needs a budget"),
        (",budget=48", "budget=48 is for an artifact or a method"),
        (",device=cpu", "device is given twice, in --model_args and as --device"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, message, scored, harnessed):
    with pytest.raises(ClaspError, match=message):
        scored("embedded", options.format(artifact=harnessed.artifact))


def test_answers_of_an_earlier_artifact_are_refused(scored, harnessed, tmp_path):
    cli = SimpleNamespace(use_cache=str(tmp_path), output_path=None, process_with_media=False, reasoning_tags=None)
    with pytest.raises(InputError, match="leave --use_cache out"):
        scored("embedded", limit=2, use_cache=str(tmp_path), cli_args=cli)


@pytest.mark.parametrize(("error", "code"), [(InputError("no such budget"), 2), (KeyError("a mistake"), 70)])
def test_an_error_ends_the_command_and_is_raised_elsewhere(error, code, monkeypatch, capsys):
    from clasp_calib.harness.lmms_model import ending_run

    with pytest.raises(type(error)), ending_run():
        raise error
    monkeypatch.setitem(sys.modules, "lmms_eval.__main__", SimpleNamespace())
    with pytest.raises(SystemExit) as ended, ending_run():
        raise error
    assert ended.value.code == code
    assert str(error) in capsys.readouterr().err


def lmms_eval(harnessed, options, output):
    words = ["--model", "clasp", "--model_args", f"pretrained=reference,artifact={harnessed.artifact}{options}"]
    words += ["--tasks", "embedded", "--include_path", str(harnessed.tasks), "--device", "cpu", "--batch_size", "4"]
    program = Path(sys.executable).parent / "lmms-eval"
    return subprocess.run(
        [program, *words, "--limit", "4", "--log_samples", "--output_path", str(output)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_the_command_writes_scores_and_visual_tokens(harnessed, tmp_path):
    done = lmms_eval(harnessed, ",budget=48,classes=auto", tmp_path)
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / "reference").glob("*_results.json")
    expected = harnessed.scores("calibrated")[:4]
    assert json.loads(results.read_text())["results"]["embedded"]["exact,none"] == sum(expected) / 4
    (tokens,) = (tmp_path / "reference").glob("*_visual_tokens.json")
    record = json.loads(tokens.read_text())
    means = record["tasks"]["embedded"]
    assert (means["requests"], means["before"]) == (4, 576)
    assert abs(means["kept"] - 48) < 1
    assert [request["class"] for request in record["requests"]] == [row["class"] for row in harnessed.rows[:4]]
    assert "embedded: 4 requests, 576.0 visual tokens, 48.0 of them in a decoder layer on average" in done.stderr


def test_a_command_that_fails_ends_with_2_and_writes_no_scores(harnessed, tmp_path):
    done = lmms_eval(harnessed, ",budget=77", tmp_path)
    assert done.returncode == 2
    assert "clasp: this artifact holds no budget '77' (it holds 48)" in done.stderr
    assert not list(tmp_path.rglob("*.json"))


def test_samples_are_read_from_a_task(harnessed):
    found = cc.load_samples(f"lmms:{harnessed.tasks / 'embedded.yaml'}")
    rows = found.table.to_pylist()
    assert [row["question"] for row in rows] == [row["question"] for row in harnessed.rows]
    assert [row["answers"] for row in rows] == [row["answers"] for row in harnessed.rows]
    assert [row["id"] for row in rows] == [str(number) for number in range(len(rows))]
    assert [row["benchmark_id"] for row in rows] == [row["id"] for row in harnessed.rows]
    first = next(iter(found))
    seen, own = (
        cc.load_picture(picture)
        for picture in (first.picture, harnessed.tasks.parent / "benchmark" / harnessed.rows[0]["image"])
    )
    assert seen.tobytes() == own.tobytes()
    assert len(cc.load_samples(f"lmms:{harnessed.tasks / 'embedded.yaml'}:validation")) == 1


def test_what_a_task_puts_around_a_question_is_kept_apart(harnessed):
    rows = cc.load_samples(f"lmms:{harnessed.tasks / 'instructed.yaml'}", limit=1).table.to_pylist()
    assert rows[0]["bare_question"] == harnessed.rows[0]["question"]
    assert rows[0]["question"] == f"How many things are there? {harnessed.rows[0]['question']}\nHow many?"


def test_choices_are_read_from_a_task(harnessed):
    rows = cc.load_samples(f"lmms:{harnessed.tasks / 'likely.yaml'}").table.to_pylist()
    assert [row["answers"] for row in rows] == [row["answers"] for row in harnessed.rows]
    assert all(row["answers"][0] in row["choices"] for row in rows)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embedded.yaml:train", "has no split 'train'; it has test, validation"),
        ("other.yaml", "there is no task .*other.yaml"),
        ("broken.yaml", r"document 1: doc_to_visual gives a dict; expected pictures or paths"),
    ],
)
def test_tasks_that_cannot_be_read_are_named(name, message, harnessed):
    with pytest.raises(InputError, match=message):
        cc.load_samples(f"lmms:{harnessed.tasks / name}")


def test_an_unknown_task_is_named():
    with pytest.raises(InputError, match="lmms-eval has no task 'gqa_tiny'; there are"):
        cc.load_samples("lmms:gqa_tiny")
