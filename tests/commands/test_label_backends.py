"""`label` with a language model, and the commands around it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_llm_server import GOOD, Fake, reply, running

QUESTIONS = ["How many?", "bad", "How many?"]


def written(path: Path) -> Path:
    path.write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS))
    return path


def test_labels_by_a_server_and_strict(command, tmp_path):
    samples, target = written(tmp_path / "q.jsonl"), tmp_path / "run"
    with running(Fake(lambda q, t: reply("?") if q == "bad" else GOOD)) as fake:
        words = ["label", samples, "--run", target, "--backend", "server", "--base-url", fake.url]
        ended = command(*words, "--strict", "--json")
        assert ended.code == 1
        assert ended.json["rows"] == 3
        assert ended.json["sources"]["default"] == 1
        assert list(ended.json["failed"]) == ["bad"]
        asked = fake.asked.total()
        again = command(*words)
        assert again.code == 0
        assert "--retry-failed" in again.out
        assert fake.asked.total() == asked == 4
    assert "OPENAI" not in (target / "config.json").read_text()


def test_backends_that_cannot_be_used(command, tmp_path):
    words = ["label", written(tmp_path / "q.jsonl"), "--run", tmp_path / "run"]
    for more, complaint in (
        (["--backend", "server"], "needs --base-url"),
        (["--backend", "server", "--base-url", "http://127.0.0.1:9/v1"], "no OpenAI-compatible server answers"),
        (["--backend", "server", "--base-url", "nonsense"], "'nonsense' is no address of a server"),
        (["--backend", "vllm", "--engine", "[]"], "--engine takes a JSON object"),
        (["--backend", "oracle"], "'oracle' is not one of"),
    ):
        ended = command(*words, *more)
        assert ended.code == 2
        assert complaint in ended.err
        assert "Traceback" not in ended.err


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_the_offline_backend_without_vllm_says_what_to_install(command, tmp_path):
    ended = command("label", written(tmp_path / "q.jsonl"), "--run", tmp_path / "run", "--backend", "vllm")
    assert ended.code == 2
    assert "clasp-calib[vllm]" in ended.err


def test_serve_labeler_without_the_command_and_with_one_that_ends(command, tmp_path):
    ended = command("serve-labeler", "--vllm", tmp_path / "absent")
    assert ended.code == 2
    assert "install vLLM" in ended.err
    ends = tmp_path / "vllm"
    ends.write_text(f"#!{sys.executable}\nraise SystemExit(3)\n")
    ends.chmod(0o755)
    words = ["serve-labeler", "--vllm", str(ends), "--port", "9"]
    done = subprocess.run(
        [sys.executable, "-m", "clasp_calib.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "vllm serve ended with 3 before it was ready" in done.stderr


def test_rules_test_and_lint(command, tmp_path):
    told = command("rules", "test", "What number is on the jersey?", "--json").json
    assert (told["class"], told["matching"][0]["rule"]) == ("text", "numbers-and-names")
    assert "no rule matches" in command("rules", "test", "Zzz.").out
    assert command("rules", "lint").code == 0
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "version: 1\nrules:\n"
        "- {id: a, intent: other, pattern: [ball]}\n- {id: b, intent: counting, pattern: [red ball]}\n"
    )
    ended = command("rules", "lint", "--rules", rules)
    assert ended.code == 1
    assert "rule 'b' can never decide" in ended.out


def test_rules_that_lose_to_a_labeler_are_named_and_written_out(command, tmp_path):
    rules, table, out = (tmp_path / name for name in ("rules.yaml", "labels.jsonl", "better.yaml"))
    rules.write_text(
        "version: 1\nrules:\n"
        "- id: how  # too sure\n  intent: counting\n  overrides: true\n  pattern: [how]\n"
        "- id: what\n  intent: counting\n  pattern: [what]\n"
        "- id: else\n  intent: object_identification\n  pattern: [what, who]\n"
    )
    answer = json.dumps({"intent": "attribute_recognition"})
    rows = [{"question": f"how is the {i}?", "gold_class": "attribute", "raw": answer} for i in range(5)]
    rows += [{"question": f"what is the {i}?", "gold_class": "object", "raw": ""} for i in range(6)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["rules", "lint", "--rules", rules, "--against", table]
    ended = command(*words, "--out", out)
    assert ended.code == 1, ended.err
    assert "rule 'how' loses 5 questions and wins 0: take its 'overrides' off" in ended.out
    assert "rule 'what' loses 6 questions and wins 0: mend or remove it" in ended.out
    assert "3 rules: 0 dead, 1 phrases shadowed, 0 lists unused, 2 losing" in ended.out
    expected = rules.read_text().replace("true", "false")
    assert out.read_text() == expected[: expected.index("- id: what")] + expected[expected.index("- id: else") :]
    ended = command("rules", "lint", "--rules", out, "--against", table, "--json")
    assert ended.code == 0
    (judged,) = ended.json["judged"]
    assert (judged["rule"], judged["won"], judged["loses"]) == ("else", 6, False)
    table.write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    assert command(*words).code == 0, "four questions are few"
    assert "--out is used with --against only" in command("rules", "lint", "--out", out).err
    table.write_text(json.dumps({"question": "what?"}) + "\n")
    assert "no classes by hand to judge rules by" in command(*words).err


def test_compare_labels(command, tmp_path):
    def table(name, *classes):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"question": "Q?", "class": c}) + "\n" for c in classes))
        return path

    first, second = table("a.jsonl", "text", "text", "scene"), table("b.jsonl", "text", "scene", "scene")
    told = command("compare-labels", first, second, "--json").json
    assert told["agreement"] == pytest.approx(2 / 3)
    assert told["confusions"] == [{"first": "text", "second": "scene", "rows": 1}]
    assert "agreement 66.7%" in command("compare-labels", first, second).out
    assert "expected two labellings of the same rows" in command("compare-labels", first, table("c.jsonl", "text")).err
    assert "3 of 3 samples have no class" in command("compare-labels", first, written(tmp_path / "q.jsonl")).err
