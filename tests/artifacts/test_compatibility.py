"""What other versions and other programs rely on: a golden artifact of each format, and the shipped JSON Schema."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.evidence import sample_scores, trials
from clasp_calib.artifacts.files import MANIFEST, verify_files, write_artifact
from clasp_calib.artifacts.schema import SCHEMA, json_schema

GOLDEN = Path(__file__).parent / "golden" / "format-1"


def test_the_golden_artifact_of_format_1_loads_for_ever():
    """Never make this artifact anew: a reader that cannot read it breaks everybody's."""
    artifact = read_artifact(GOLDEN)
    assert artifact.manifest.id == (GOLDEN / "id.txt").read_text().strip()
    assert (artifact.budgets, artifact.classes, artifact.pruning.starts) == (
        ("8", "50%"),
        ("object", "text", "default"),
        (2, 6, 15),
    )
    assert artifact.counts("50%") == (10, 6, 5)
    assert artifact.alpha("8", "object") == (0.0, 0.5, 0.0, 0.5, 0.0)
    assert artifact.rho("50%", "text") == 0.7
    assert [(t.budget, t.state) for t in trials(artifact)] == [("8", "chosen"), ("8", "rejected")]
    assert [s.score for s in sample_scores(artifact)] == [1.0, 0.0]
    assert set(verify_files(GOLDEN)) == {MANIFEST, *artifact.manifest.files}


def test_the_golden_artifact_can_be_written_again(tmp_path):
    artifact = read_artifact(GOLDEN)
    again = read_artifact(write_artifact(artifact, tmp_path / "a") and tmp_path / "a")
    assert again.manifest.model_copy(update={"files": {}, "id": None}) == artifact.manifest.model_copy(
        update={"files": {}, "id": None}
    )
    assert np.array_equal(again.alphas, artifact.alphas)


def test_the_shipped_schema_is_that_of_the_manifest():
    shipped = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert shipped == json_schema(), "write it anew with `python -m clasp_calib.artifacts.schema`"


def test_the_schema_names_every_key_of_the_golden_artifact():
    content = json.loads((GOLDEN / MANIFEST).read_text())
    added_since = {"router"}
    assert set(content) == set(json_schema()["properties"]) - added_since


BLOCKED = ("optuna", "h5py", "vllm", "sklearn", "scipy", "matplotlib", "pandas", "ray", "datasets", "xxhash")
SERVE = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
import clasp_calib
from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.runtime import fusion, pruner, schedule, selection
artifact = read_artifact(__import__("pathlib").Path(sys.argv[1]))
assert artifact.counts("8") == (10, 6, 5)
assert callable(clasp_calib.clasp)
loaded = [name for name in sys.modules if name.startswith("clasp_calib.") and name.split(".")[1] in
          ("search", "calib", "cache", "report", "reference", "commands", "baselines")]
assert not loaded, loaded
"""


def test_a_server_needs_none_of_the_toolkit():
    ended = subprocess.run([sys.executable, "-c", SERVE, str(GOLDEN)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
