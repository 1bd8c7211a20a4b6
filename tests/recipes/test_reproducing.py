"""Real runs, with programs that stand in for both command lines: order, resumption, refusals, and the table."""

import json
import shutil
from pathlib import Path

import pytest

import clasp_calib as cc
from clasp_calib.common.errors import InputError, StudyError
from clasp_calib.recipes import step_running
from clasp_calib.recipes.registry import paper_table
from clasp_calib.recipes.reproduced import beside_paper

CLASP = """
import sys
from pathlib import Path
run = Path(sys.argv[sys.argv.index("--run") + 1])
with (run / "called.txt").open("a") as file:
    file.write(" ".join(sys.argv[1:3]) + "\\n")
print("words of a program")
if sys.argv[1] == "search" and not (run / "space.yaml").is_file():
    sys.exit("no space")
if sys.argv[1] == "compare" and (run / "comparison").exists():
    (run / "report").mkdir(exist_ok=True)
    (run / "report" / "comparison-test.json").write_text((run / "comparison").read_text())
if (run / "die-at").exists() and (run / "die-at").read_text() == sys.argv[1]:
    (run / "die-at").unlink()
    sys.exit(9)
"""
LMMS = """
import json, sys
from pathlib import Path
of = {name: sys.argv[sys.argv.index(name) + 1] for name in ("--model_args", "--tasks", "--output_path")}
run = Path("run")
with (run / "called.txt").open("a") as file:
    file.write("lmms " + of["--tasks"] + "\\n")
task = of["--tasks"]
if "--include_path" in sys.argv:
    path = Path(sys.argv[sys.argv.index("--include_path") + 1]) / f"{task}.yaml"
    assert "ocr: true" in path.read_text() and "textvqa_val.yaml" in path.read_text()
names = {
    "mme": ["mme_perception_score", "mme_cognition_score"], "pope": ["pope_f1_score"],
}.get(task, ["exact_match"])
score = 0.5 if "method=" in of["--model_args"] else 0.625
numbers = {f"{name},none": 900.0 if task == "mme" else score for name in names}
place = Path(of["--output_path"]) / "a__model"
if not (run / "no-results").exists():
    place.mkdir(parents=True, exist_ok=True)
    (place / "20260101_results.json").write_text(json.dumps({"results": {task: numbers}}))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A directory in which both programs are stand-ins, and the harness and its plug-in are there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code" / "lmms_stand_in" / "tasks" / "textvqa").mkdir(parents=True)
    (tmp_path / "code" / "clasp_stand_in.py").write_text(CLASP)
    (tmp_path / "code" / "lmms_stand_in" / "__main__.py").write_text(LMMS)
    (tmp_path / "code" / "lmms_stand_in" / "__init__.py").touch()
    (tmp_path / "code" / "lmms_stand_in" / "tasks" / "textvqa" / "textvqa_val.yaml").write_text("task: textvqa_val\n")
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    names = {step_running.CLASP: "clasp_stand_in", step_running.LMMS: "lmms_stand_in"}
    monkeypatch.setitem(step_running.MODULES, step_running.CLASP, names[step_running.CLASP])
    monkeypatch.setitem(step_running.MODULES, step_running.LMMS, names[step_running.LMMS])
    monkeypatch.setattr(step_running, "plugin_listed", lambda: True)
    monkeypatch.setattr(step_running, "VLLM", "clasp_stand_in")
    return tmp_path


OPTIONS = cc.ReproductionOptions("mine.jsonl", device="cpu")
COSTLY = 23
"""A table with columns of costs."""


def called(root: Path) -> list[str]:
    return (root / "run" / "called.txt").read_text().splitlines()


def test_a_table_stands_beside_the_paper(programs, capfd):
    report = cc.reproduce(10, OPTIONS, run="run")
    assert capfd.readouterr().out == ""
    assert called(programs)[:7] == [
        *("label mine.jsonl", "train-router --force", "sample --run", "cache-features --run", "search --run"),
        *("artifact part", "artifact part"),
    ]
    assert called(programs)[7:] == ["lmms mme", "lmms textvqa_val_ocr_for_clasp", "lmms gqa", "lmms pope"] * 4
    baseline, fusion, *_ = report.rows
    assert baseline == [
        *("Baseline", "1800 (1721, +79)", "50.0 (56.1, -6.1)", "50.0 (57.6, -7.6)", "50.0 (83.6, -33.6)")
    ]
    assert fusion[4] == "62.5 (85.0, -22.5)"
    (table, numbers) = report.files
    assert "WATERMARK" not in table.read_text()
    found = json.loads(numbers.read_text())
    assert not found["rehearsed"]
    assert found["rows"][0]["columns"]["mme"] == {"measured": 1800.0, "paper": 1721.0, "difference": 79.0}


def test_a_killed_run_goes_on_where_it_was(programs, capfd):
    (programs / "run").mkdir()
    (programs / "run" / "die-at").write_text("cache-features")
    with pytest.raises(StudyError, match=r"step 4 of 23 ended with 9: clasp-calib cache-features .*is not repeated"):
        cc.reproduce(10, OPTIONS, run="run")
    cc.reproduce(10, OPTIONS, run="run")
    words = [line.split()[0] for line in called(programs)]
    assert words[:5] == ["label", "train-router", "sample", "cache-features", "cache-features"]
    assert words.count("label") == 1
    assert "going on after 3 of 23 steps" in capfd.readouterr().err
    before = len(words)
    cc.reproduce(10, OPTIONS, run="run")
    assert len(called(programs)) == before


def test_a_run_directory_of_other_steps_is_refused(programs):
    cc.reproduce(10, OPTIONS, run="run")
    with pytest.raises(InputError, match="records a reproduction with other steps"):
        cc.reproduce(10, cc.ReproductionOptions("others.jsonl", device="cpu"), run="run")


@pytest.mark.parametrize("done", [-1, 1.5, True, "3", None])
def test_a_record_of_no_number_of_steps_is_refused(programs, done):
    cc.reproduce(10, OPTIONS, run="run")
    path, before = programs / "run" / "reproduction.json", called(programs)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"done": done}))
    with pytest.raises(InputError, match=r"is damaged .*done is .*which is no number of steps"):
        cc.reproduce(10, OPTIONS, run="run")
    assert called(programs) == before


@pytest.mark.parametrize("content", ["[]", "{", '{"steps": 1}'])
def test_a_damaged_record_is_refused(programs, content):
    (programs / "run").mkdir()
    (programs / "run" / "reproduction.json").write_text(content)
    with pytest.raises(InputError, match="is damaged"):
        cc.reproduce(10, OPTIONS, run="run")


def test_a_harness_that_ends_well_without_results_is_noticed_at_once(programs):
    (programs / "run").mkdir()
    (programs / "run" / "no-results").touch()
    with pytest.raises(StudyError, match=r"wrote no results to .*mme, though it ended with 0"):
        cc.reproduce(10, OPTIONS, run="run")
    assert called(programs)[-1] == "lmms mme"
    (programs / "run" / "no-results").unlink()
    cc.reproduce(10, OPTIONS, run="run")


def test_results_without_the_metric_are_refused(programs, capfd):
    cc.reproduce(10, OPTIONS, run="run")
    place = next((programs / "run" / "lmms" / "sparsevlm-192" / "gqa").rglob("*_results.json"))
    for content in ('{"results": {"gqa": {"exact_match,none": NaN}}}', '{"results": {}}', "[]"):
        place.write_text(content)
        with pytest.raises(
            StudyError, match=r"exact_match.*remove .*sparsevlm-192/gqa, and run the same command again"
        ):
            cc.reproduce(10, OPTIONS, run="run")
    before = called(programs)
    shutil.rmtree(programs / "run" / "lmms" / "sparsevlm-192" / "gqa")
    cc.reproduce(10, OPTIONS, run="run")
    assert called(programs) == [*before, "lmms gqa"]
    assert "the results of 1 of these are gone, and they run again" in capfd.readouterr().err


def test_a_comparison_that_is_gone_runs_again(programs):
    comparison = programs / "run" / "report" / "comparison-test.json"
    with pytest.raises(
        StudyError, match=r"comparison-test.json is no comparison with costs \(FileNotFoundError.*remove"
    ):
        cc.reproduce(COSTLY, OPTIONS, run="run")
    rows = [
        {"method": row.by, "budget": row.budget, "prefill": {"seconds": 0.25}, "decoder_flops": 3e12}
        for row in paper_table(COSTLY).runnable
    ]
    written = json.dumps({"budgets": [{"budget": row["budget"], "methods": [row]} for row in rows]})
    (programs / "run" / "comparison").write_text(written)
    cc.reproduce(COSTLY, OPTIONS, run="run")
    before = called(programs)
    for content in ("[]", "{", '{"budgets": 3}'):
        comparison.write_text(content)
        with pytest.raises(StudyError, match="is no comparison with costs"):
            cc.reproduce(COSTLY, OPTIONS, run="run")
    comparison.unlink()
    cc.reproduce(COSTLY, OPTIONS, run="run")
    assert called(programs) == [*before, next(line for line in before if line.startswith("compare"))]


@pytest.mark.parametrize("number", [14, 15, 22])
def test_what_cannot_be_run_is_refused_with_what_is_missing(number, tmp_path):
    with pytest.raises(InputError, match=rf"table {number} cannot be reproduced: .{{80}}") as refused:
        cc.reproduce(number, OPTIONS, run=tmp_path / "run")
    assert "--dry" in str(refused.value)
    assert not (tmp_path / "run").exists()
    assert not cc.plan_reproduction(number).steps


def test_without_samples_or_harness_nothing_begins(tmp_path):
    with pytest.raises(InputError, match="there are no samples"):
        cc.reproduce(10, cc.ReproductionOptions(), run=tmp_path / "run")
    with pytest.raises(InputError, match=r"lmms-eval is not installed beside this package.*docs/guide/lmms-eval.md"):
        cc.reproduce(10, OPTIONS, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_server_labels_where_vllm_has_an_environment_of_its_own(programs, monkeypatch):
    monkeypatch.setattr(step_running, "VLLM", "vllm")
    with pytest.raises(InputError, match=r"vLLM is not installed .*serve-labeler.*--base-url"):
        cc.reproduce(10, OPTIONS, run="run")
    by_server = cc.ReproductionOptions("mine.jsonl", base_url="http://127.0.0.1:8000", device="cpu")
    label = cc.plan_reproduction(10, options=by_server).steps[0].argv
    assert label[-6:-2] == ("--backend", "server", "--base-url", "http://127.0.0.1:8000")
    cc.reproduce(10, by_server, run="run")


def test_shares_of_the_unpruned_row_are_computed_where_every_benchmark_is_there():
    table = paper_table(13)
    whole = dict.fromkeys(table.tasks, 50.0)
    half = {("Retain 640 Tokens", "CLASP (ours)"): dict.fromkeys(table.tasks, 25.0)}
    report = beside_paper(table, {("", "Upper bound"): whole, **half})
    rows = {(row["group"], row["row"]): row["columns"]["average"]["measured"] for row in report.values}
    assert rows["", "Upper bound"] == 100
    assert rows["Retain 640 Tokens", "CLASP (ours)"] == 50
    assert rows["Retain 640 Tokens", "SparseVLM"] is None
    # Of Table 1 VQAv2 is missing, and a mean of the others would be another number.
    one = paper_table(1)
    report = beside_paper(one, {("", "Upper bound"): dict.fromkeys(one.tasks, 50.0)})
    assert report.values[0]["columns"]["average"]["measured"] is None
    assert report.rows[0][-1] == "– (100.0, –)"


def test_a_plan_costs_what_its_blocks_cost():
    plan = cc.plan_reproduction(5, utilisation=0.5)
    task = next(step for step in plan.steps if step.step.kind == "task")
    # By hand: 32 layers of width 4096 on 576 + 64 tokens, and 24 of a tower on 577; POPE has 9,000 questions.
    decoder = 32 * 2 * (4 * 640 * 4096**2 + 2 * 640**2 * 4096 + 3 * 640 * 4096 * 11008)
    tower = 24 * 2 * (4 * 577 * 1024**2 + 2 * 577**2 * 1024 + 2 * 577 * 1024 * 4096)
    assert task.flops == pytest.approx(9000 * (decoder + tower))
    assert task.hours(0.5) == pytest.approx(task.flops / 156e12 / 3600)
    assert plan.hours == pytest.approx(sum(step.hours(0.5) or 0 for step in plan.steps))
    cache = next(step for step in plan.steps if step.step.kind == "cache")
    assert cache.disk == 36_000 * 5 * 577 * 1024 * 2 + 2 * 7_060_000_000
    with pytest.raises(InputError, match="utilisation is 30; expected a share"):
        cc.plan_reproduction(5, utilisation=30)
