"""``clasp-calib compare`` on a finished run."""

import json

from clasp_calib.common.errors import BudgetError


def test_methods_are_compared_and_reported(copied, command):
    words = ["compare", *copied.words, "--methods", "fastv,fastervlm", "--budget", "6", "--per-class", "2"]
    first = command(*words, "--timed", "1", "--json")
    assert first.code == 0, first.err
    (budget,) = first.json["budgets"]
    names = {entrant["method"]: entrant for entrant in budget["methods"]}
    released = {"unpruned", "default", "fastv", "fastervlm"}
    assert set(names) == released | {"calibrated", "selection alone"} | {f"{name}+mixture" for name in released}
    for name in ("fastv", "fastervlm"):
        assert abs(names[name]["tokens"]["mean"] - 6) <= 0.5
        assert names[name]["prefill"]["seconds"] > 0
        assert names[name]["prefill"]["peak_bytes"] > 0
    assert names["calibrated"]["difference"]["macro"]["mean"] == 0
    report = copied.run / "report"
    assert (report / "comparison-test.png").stat().st_size > 10_000
    assert "| fastv |" in (report / "comparison-test.md").read_text()
    assert json.loads((report / "comparison-test.json").read_text())["budgets"] == first.json["budgets"]

    (journal,) = (copied.run / "comparison").glob("answers-*.jsonl")
    before = journal.read_bytes()
    journal.write_bytes(before[:-20])  # as a killed process may leave it
    second = command(*words, "--timed", "0")
    assert second.code == 0, second.err
    assert "going on with" in second.err
    assert journal.read_bytes() == before


def test_a_method_that_cannot_meet_a_budget_is_named(copied, command):
    ended = command(*["compare", *copied.words], "--methods", "btp,fastv", "--budget", "50%", "--timed", "0")
    assert ended.code == 0, ended.err
    ended = command("compare", *copied.words, "--methods", "fast5")
    assert ended.code == 2
    assert "fast5" in ended.err
    assert "fastv" in ended.err


def test_every_row_says_what_it_is(copied, command):
    """Random tokens at the stages and before the decoder, and the stand-in for a text tower, have a name each."""
    words = ["compare", *copied.words, "--budget", "6", "--per-class", "1", "--timed", "0"]
    ended = command(*words, "--methods", "random,random-input,cdpruner,hawk", "--no-mixture", "--json")
    assert ended.code == 0, ended.err
    (budget,) = ended.json["budgets"]
    found = {entrant["method"]: entrant for entrant in budget["methods"]}
    ours = {"unpruned", "calibrated", "selection alone", "default"}
    assert set(found) == ours | {"random", "random-input", "cdpruner-embeddings"}
    assert found["random"]["settings"].keys() == {"starts", "counts"}
    assert found["random-input"]["settings"] == {"keep": "6"}
    assert found["cdpruner-embeddings"]["settings"]["rated by"] == "the question's embeddings"
    assert "measured their importance for Qwen2.5-VL-7B alone" in budget["refused"]["hawk"]
    ended = command(*words, "--methods", "cdpruner", "--clip", str(copied.run))
    assert ended.code == 2
    assert "holds no CLIP model with its tokenizer" in ended.err


def test_knobs_that_depend_on_the_image_are_solved_once(copied, command, monkeypatch):
    words = ["compare", *copied.words, "--methods", "prumerge", "--budget", "50%", "--per-class", "1", "--timed", "0"]
    words += ["--solve-on", "2"]
    first = command(*words, "--json")
    assert first.code == 0, first.err
    (budget,) = first.json["budgets"]
    (settings,) = (m["settings"] for m in budget["methods"] if m["method"] == "prumerge")
    assert "images, standard deviation" in settings["solved on"]

    def never(*_, **__):
        raise AssertionError("solved again")

    monkeypatch.setattr("clasp_calib.baselines.prumerge.PruMerge.calibrated", never)
    again = command(*words, "--json")
    assert again.code == 0, again.err
    assert again.json["budgets"] == first.json["budgets"]


def test_that_a_knob_cannot_be_solved_is_found_out_once(copied, command, monkeypatch):
    words = ["compare", *copied.words, "--methods", "prumerge", "--budget", "50%", "--per-class", "1", "--timed", "0"]
    asked = []

    def never(self, model, images, budget):
        asked.append(budget)
        raise BudgetError("no knob comes so near")

    monkeypatch.setattr("clasp_calib.baselines.prumerge.PruMerge.calibrated", never)
    for _ in range(2):
        ended = command(*words)
        assert ended.code == 0, ended.err
        assert "not at 50%: no knob comes so near" in ended.out
    assert asked == ["50%"]


def test_artifacts_are_compared_with_each_other(copied, command):
    place = str(copied.run / "artifact")
    words = ["compare", *copied.words, "--methods", "none", "--per-class", "1", "--timed", "0", "--no-mixture"]
    ended = command(*words, "--budget", "6", "--beside", f"last month={place}", "--json")
    assert ended.code == 0, ended.err
    (budget,) = ended.json["budgets"]
    found = {entrant["method"]: entrant for entrant in budget["methods"]}
    assert set(found) == {"unpruned", "calibrated", "selection alone", "default", "last month"}
    assert found["last month"]["scores"] == found["calibrated"]["scores"]
    assert found["last month"]["settings"] == found["calibrated"]["settings"]
    assert "| last month |" in (copied.run / "report" / "comparison-test.md").read_text()
    for wrong, told in (
        (["--beside", place], "expected NAME=ARTIFACT"),
        (["--beside", f"x={place}", "--beside", f"x={place}"], "is given twice"),
        (["--beside", f"fastv={place}"], "as a method or a setting of a comparison is"),
        (["--beside", f"mine={copied.samples}"], "the artifact 'mine': "),
    ):
        ended = command(*words, *wrong)
        assert ended.code == 2
        assert told in ended.err
