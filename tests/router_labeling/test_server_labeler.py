"""A server that answers, misbehaves or dies, and the journal that makes nothing be asked twice."""

import json
from typing import Any

import pytest
from fake_llm_server import GOOD, Fake, reply, running

from clasp_calib.common.errors import InputError, LabelerError
from clasp_calib.router_labeling.journalled import JournalledLabeler
from clasp_calib.router_labeling.labelers import load_scheme
from clasp_calib.router_labeling.server_labeler import ServerLabeler

SCHEME = load_scheme()


def labeler(fake: Fake, **options: Any) -> ServerLabeler:
    return ServerLabeler(fake.url, **{"backoff": 0.01, "concurrency": 4, **options})


def test_each_question_gets_its_label_and_requests_are_bounded():
    with running(Fake()) as fake:
        guesses = dict(labeler(fake).ask([f"How many {i}?" for i in range(30)], SCHEME))
    assert sorted(guesses) == list(range(30))
    assert {(g.intent, g.source) for g in guesses.values()} == {("counting", "llm")}
    assert guesses[0].confidence == pytest.approx(0.6065, abs=1e-3)  # exp(-0.5): two tokens spell "counting"
    assert fake.busiest <= 4
    body = fake.bodies[0]
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["model"], body["temperature"], body["logprobs"]) == ("fake", 0.0, True)


def test_a_passing_failure_is_asked_again():
    with running(Fake(lambda question, time: (503, {}) if time == 1 else None if time == 2 else GOOD)) as fake:
        ((_, guess),) = labeler(fake).ask(["How many?"], SCHEME)
    assert guess.source == "llm"
    assert fake.asked["How many?"] == 3


def test_a_question_that_fails_three_times_becomes_default_with_its_reason():
    def answer(question, time):
        return reply("so many") if question == "bad" else (400, {"message": "too long"}) if question == "long" else GOOD

    with running(Fake(answer)) as fake:
        guesses = dict(labeler(fake).ask(["bad", "long", "good"], SCHEME))
    assert (guesses[0].intent, guesses[0].source, guesses[0].confidence) == ("other", "default", 0.0)
    assert "no label after 3 attempts: the reply is not JSON" in guesses[0].raw
    assert "HTTP 400" in guesses[1].raw
    assert guesses[2].source == "llm"
    assert fake.asked == {"bad": 3, "long": 1, "good": 1}
    assert [b["temperature"] for b in fake.bodies if '"bad"' in b["messages"][1]["content"]] == [0.0, 0.7, 0.7]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda q, t: (401, {"message": "who are you"}), "refuses with HTTP 401"),
        (lambda q, t: reply("free text"), "none of the first 3 questions"),
    ],
)
def test_what_would_fail_for_all_ends_the_run(answer, complaint):
    with running(Fake(answer)) as fake, pytest.raises(LabelerError, match=complaint):
        list(labeler(fake).ask(["a", "b", "c"], SCHEME))


def test_no_server_and_no_such_model():
    with pytest.raises(LabelerError, match="no OpenAI-compatible server answers"):
        ServerLabeler("http://127.0.0.1:9/v1").fingerprint(SCHEME)
    with running(Fake()) as fake, pytest.raises(LabelerError, match="serves fake; name one"):
        labeler(fake, model="qwen").fingerprint(SCHEME)


def test_a_server_that_dies_leaves_what_it_answered_and_nothing_is_asked_twice(tmp_path):
    questions = [f"How many {i}?" for i in range(20)] * 2

    def until_it_dies(question, time):
        if len(fake.asked) > 12:
            fake.dead = True
            return None
        return GOOD

    with running(Fake(until_it_dies)) as fake:
        journalled = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        with pytest.raises(LabelerError, match=r"stopped answering .* is kept"):
            list(journalled.label(questions))
    kept = {json.loads(line.split(" ", 1)[1])["question"] for line in journalled.path.read_text().splitlines()[1:]}
    assert 0 < len(kept) < 20
    with running(Fake()) as again:
        resumed = JournalledLabeler(labeler(again), SCHEME, tmp_path)
        guesses = list(resumed.label(questions))
    assert resumed.resumed == len(kept)
    assert set(again.asked) == set(questions) - kept
    assert set(again.asked.values()) == {1}
    assert {g.intent for g in guesses} == {"counting"}
    assert len(guesses) == 40


def test_a_torn_last_line_is_asked_again_and_damage_is_named(tmp_path):
    with running(Fake()) as fake:
        first = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        list(first.label(["a", "b"]))
        first.path.write_bytes(first.path.read_bytes()[:-5])
        second = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        list(second.label(["a", "b"]))
        assert second.resumed == 1
        assert sorted(fake.asked.values()) == [1, 2]
        lines = first.path.read_text().splitlines()
        first.path.write_text("\n".join([lines[0], "{}", *lines[1:]]) + "\n")
        with pytest.raises(InputError, match=r"line 2 of the journal .* is damaged"):
            list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["a"]))


def test_failures_are_kept_and_can_be_tried_again(tmp_path):
    with running(Fake(lambda q, t: reply("?") if q == "bad" and t <= 3 else GOOD)) as fake:
        first = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        assert [g.source for g in first.label(["good", "bad"])] == ["llm", "default"]
        list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["good", "bad"]))
        assert fake.asked == {"good": 1, "bad": 3}
        third = JournalledLabeler(labeler(fake), SCHEME, tmp_path, retry_failed=True)
        assert [g.source for g in third.label(["good", "bad"])] == ["llm", "llm"]


def test_a_journal_without_checksums_is_taken_up(tmp_path):
    """As versions before the first checksums wrote it."""
    with running(Fake()) as fake:
        first = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        kept = list(first.label(["é", "b", "b\udc80"]))
        lines = [json.loads(line.split(" ", 1)[1]) for line in first.path.read_text().splitlines()]
        old = "".join(json.dumps(line, ensure_ascii="\udc80" in line.get("question", "")) + "\n" for line in lines)
        first.path.write_text(old + '{"question":"c", "in', encoding="utf-8")
        again = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        assert list(again.label(["é", "b", "b\udc80", "c"]))[:3] == kept
        assert again.resumed == 3
        assert list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["c", "b"]))[1] == kept[1]
        assert set(fake.asked.values()) == {1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"intent": ["counting"]},
        {"confidence": "high"},
        {"confidence": float("nan")},
        {"confidence": 7},
        {"confidence": True},
        {"source": "moon"},
        {"rule": 5},
        {"raw": ["counting"]},
        {"question": 5},
    ],
)
def test_a_line_without_a_checksum_is_believed_in_nothing(tmp_path, wrong):
    with running(Fake()) as fake:
        first = JournalledLabeler(labeler(fake), SCHEME, tmp_path)
        list(first.label(["a"]))
        head, line = (json.loads(line.split(" ", 1)[1]) for line in first.path.read_text().splitlines())
        first.path.write_text("".join(json.dumps(one) + "\n" for one in (head, line | wrong)))
        with pytest.raises(InputError, match=r"line 2 of the journal .* is damaged"):
            list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["a"]))
        first.path.write_text(json.dumps(head) + "\n" + json.dumps(line).replace("{", '{"intent": "other", ', 1) + "\n")
        with pytest.raises(InputError, match="'intent' stands twice"):
            list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["a"]))


def test_answers_may_be_kept_in_memory_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with running(Fake()) as fake:
        labels = JournalledLabeler(labeler(fake), SCHEME, None)
        assert list(labels.label(["a", "b"]))[1:] == list(labels.label(["b"]))
        assert set(fake.asked.values()) == {1}
    assert not list(tmp_path.iterdir())


def test_one_writer_at_a_time(tmp_path):
    def other(question, time):
        with pytest.raises(InputError, match=r"another process is writing to .*wait for it, or give another --run"):
            list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["b"]))
        seen.append(question)
        return GOOD

    seen: list[str] = []
    with running(Fake(other)) as fake:
        list(JournalledLabeler(labeler(fake), SCHEME, tmp_path).label(["a"]))
    assert seen == ["a"]
