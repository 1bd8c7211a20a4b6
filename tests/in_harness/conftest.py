"""A calibrated embedded model, its benchmark as tasks of lmms-eval, and what `evaluate` scores on it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import clasp_calib as cc
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.runtime.routing import classes_of

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
BUDGET = "48"


@dataclass(frozen=True)
class Harnessed:
    """What the tests share."""

    artifact: Path
    rows: list[dict]
    """Of the test split, in the order of the task's documents."""
    samples: cc.Samples
    report: cc.EvaluationReport
    tasks: Path
    """Directory with the tasks' YAML files."""

    def scores(self, setting: str) -> list[float]:
        """What `evaluate` scored under a setting, by document."""
        of = {answer.sample: answer.score for answer in self.report.at(BUDGET).answers if answer.setting == setting}
        return [of[row["id"]] for row in self.rows]


@pytest.fixture(scope="session")
def loaded():
    return cc.load_model("reference")


@pytest.fixture(scope="session")
def harnessed(tmp_path_factory, loaded) -> Harnessed:
    root = tmp_path_factory.mktemp("harness")
    samples = _routed(write_benchmark(root / "benchmark", {"calibration": 3, "selection": 2, "test": 4}))
    vision, own = loaded[0].config.vision_config, loaded[0].config.vision_feature_layer
    own %= vision.num_hidden_layers + 1
    prototypes = (
        cc.Prototype(name="own", weights={own: 1}),
        cc.Prototype(name="mixed", weights={own - 2: 0.5, own: 0.5}),
    )
    space = cc.SearchSpace(prototypes=prototypes, rhos=(0.5, 1.0))
    options = cc.CalibrationOptions(strategy=cc.Halving(first=2), space=space)
    artifact = cc.calibrate(*loaded, samples, [BUDGET], options=options)
    artifact.save(root / "artifact")
    report = cc.evaluate(*loaded, artifact, samples, options=cc.EvaluationOptions(timed=0, record=False))
    rows = [row for row in samples.table.to_pylist() if row["split"] == "test"]
    tasks = root / "tasks"
    shutil.copytree(Path(__file__).parent / "tasks", tasks)
    _write_dataset(rows, root / "benchmark", tasks / "dataset")
    for task in tasks.glob("*.yaml"):
        task.write_text(task.read_text().replace("DATASET", str(tasks / "dataset")))
    return Harnessed(root / "artifact", rows, samples, report, tasks)


def _routed(table):
    """Samples with the classes that `clasp` finds without a router of the artifact."""
    samples = cc.load_samples(table)
    classes = classes_of(samples.table["question"].to_pylist())
    return samples.with_table(samples.table.append_column("class", [classes]))


def _write_dataset(rows, pictures, path):
    import datasets

    kinds = {"image": datasets.Image()} | dict.fromkeys(("id", "question", "answer"), datasets.Value("string"))
    docs = [
        {
            "id": row["id"],
            "image": str(pictures / row["image"]),
            "question": row["question"],
            "answer": row["answers"][0],
        }
        for row in rows
    ]
    made = datasets.Dataset.from_list(docs, features=datasets.Features(kinds))
    datasets.DatasetDict({"test": made, "validation": made.select([0])}).save_to_disk(str(path))


@pytest.fixture(scope="session")
def scored(harnessed):
    """Scores tasks as lmms-eval's command does, in this process."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    def score(tasks, options="", batch_size=1, simple=False, **more):
        manager = TaskManager(include_path=str(harnessed.tasks), include_defaults=False, model_name="clasp")
        return simple_evaluate(
            "clasp",
            model_args=f"pretrained=reference{options}",
            tasks=[tasks] if isinstance(tasks, str) else tasks,
            batch_size=batch_size,
            device="cpu",
            force_simple=simple,
            task_manager=manager,
            bootstrap_iters=0,
            **more,
        )

    return score
