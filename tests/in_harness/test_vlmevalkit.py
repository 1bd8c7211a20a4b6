"""The model ``clasp`` in VLMEvalKit itself: answers are those of `evaluate`, and errors end the run."""

import base64
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clasp_calib.calib.scoring.metrics import metric

pytestmark = pytest.mark.harness
ROOT = Path(__file__).parents[2]
NAME = "EmbeddedBenchmark"


@pytest.fixture(scope="module")
def data(harnessed, tmp_path_factory):
    """A directory as ``LMUData`` names it, with the test split as a benchmark's TSV."""
    place = tmp_path_factory.mktemp("LMUData")
    with (place / f"{NAME}.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "question", "answer", "image"])
        for number, row in enumerate(harnessed.rows):
            picture = harnessed.tasks.parent / "benchmark" / row["image"]
            encoded = base64.b64encode(picture.read_bytes()).decode()
            table.writerow([number, row["question"], row["answers"][0], encoded])
    return place


@pytest.fixture(scope="module")
def kit(data):
    """Runs the command."""
    beside = [Path(sys.prefix) / "vlmevalkit", Path(__file__).parent / "torchvision_on_cpu"]
    path = os.pathsep.join(map(str, [*beside, os.environ.get("PYTHONPATH", ROOT)]))
    variables = {**os.environ, "PYTHONPATH": path, "LMUData": str(data), "PRED_FORMAT": "tsv", "COLUMNS": "200"}

    def run(options, work_dir, *arguments):
        words = [sys.executable, "-m", "clasp_calib.cli", "vlmevalkit", "--max-new-tokens", "16", *options]
        behind = ["--data", NAME, "--model", "clasp", "--mode", "infer", "--work-dir", str(work_dir), *arguments]
        return subprocess.run(
            [*words, "--json", "--", *behind], capture_output=True, text=True, check=False, env=variables
        )

    return run


@pytest.fixture(scope="module")
def pruned(kit, harnessed, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("pruned")
    done = kit(["--artifact", str(harnessed.artifact), "--budget", "48"], work_dir)
    assert done.returncode == 0, done.stderr
    return work_dir, json.loads(done.stdout)


def scores(work_dir, harnessed):
    with (work_dir / "clasp" / f"clasp_{NAME}.tsv").open(newline="") as file:
        said = {row["index"]: row["prediction"] for row in csv.DictReader(file, delimiter="\t")}
    exact = metric("exact")
    return [exact(said[str(number)], row["answers"]) for number, row in enumerate(harnessed.rows)]


def test_pruned_answers_are_those_of_evaluate(pruned, harnessed):
    assert scores(pruned[0], harnessed) == harnessed.scores("calibrated") != harnessed.scores("unpruned")


def test_unpruned_answers_are_those_of_evaluate(kit, harnessed, tmp_path):
    done = kit([], tmp_path)
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path, harnessed) == harnessed.scores("unpruned")


def test_visual_tokens_and_classes_are_recorded(pruned, harnessed):
    _, told = pruned
    record = json.loads(Path(told["visual_tokens"]).read_text())
    means = record["tasks"][NAME]
    assert (means["requests"], means["before"]) == (len(harnessed.rows), 576)
    assert abs(means["kept"] - 48) < 1
    assert [request["class"] for request in record["requests"]] == [row["class"] for row in harnessed.rows]
    assert told["datasets"][NAME]["skip_reason"] == "mode_infer"
    assert told["failed"] == {}


def test_answers_of_another_pruning_are_refused(pruned, kit):
    work_dir, _ = pruned
    done = kit(["--method", "default", "--budget", "48"], work_dir)
    assert done.returncode == 2
    assert "holds answers of another run (artifact" in done.stderr.replace("\n", " ")


def test_answers_of_the_same_pruning_are_kept_and_benchmarks_without_scores_named(pruned, kit, harnessed):
    work_dir, _ = pruned
    done = kit(["--artifact", str(harnessed.artifact), "--budget", "48"], work_dir, "--data", NAME, "NoSuchBenchmark")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["failed"] == {"NoSuchBenchmark": "invalid_dataset"}
    assert told["visual_tokens"] is None


def test_an_error_of_the_model_ends_the_run(kit, tmp_path):
    done = kit(["--method", "fastv", "--budget", "9999"], tmp_path)
    assert done.returncode == 2
    assert "9999" in done.stderr
    assert not list(tmp_path.rglob("*.tsv"))


def test_another_model_is_not_run(kit, tmp_path):
    done = kit([], tmp_path, "--model", "Qwen2-VL-2B-Instruct")
    assert done.returncode == 2
    assert "give --model clasp behind --" in done.stderr.replace("\n", " ")
