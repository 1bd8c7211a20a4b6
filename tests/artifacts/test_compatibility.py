"""What other versions and other programs rely on: a golden artifact of each format, and the shipped JSON Schema."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_artifacts import sealed

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.checkpoint_digest import Checkpoint
from clasp_calib.artifacts.evidence import sample_scores, trials
from clasp_calib.artifacts.files import MANIFEST, verify_files, write_artifact
from clasp_calib.artifacts.manifest import hashed
from clasp_calib.artifacts.schema import SCHEMA, json_schema
from clasp_calib.common.errors import ArtifactError

GOLDEN = Path(__file__).parent / "golden" / "format-1"
GOLDEN_2 = GOLDEN.with_name("format-2")


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


def test_the_golden_artifact_of_format_2_loads_for_ever():
    """Never make this one anew either."""
    artifact = read_artifact(GOLDEN_2)
    manifest = artifact.manifest
    assert manifest.id == (GOLDEN_2 / "id.txt").read_text().strip()
    assert manifest.checkpoint == Checkpoint(kind="files", digest="c" * 64)
    assert (manifest.method, manifest.knobs, manifest.profile, manifest.seeding) == ("clasp", {}, "layers", "relevance")
    assert manifest.prompt_hash == hashed(manifest.prompt)
    assert manifest.needs is None
    posterior = artifact.entry("8").choices["object"].posterior
    assert (posterior.candidates, posterior.probabilities) == (("deep/rho=0.7", "own/rho=1"), (0.75, 0.125))
    assert artifact.entry("50%").choices["object"].posterior is None
    assert artifact.entry("8").measured.checkpoint == Checkpoint(kind="memory", digest="d" * 64, dtype="float32")
    assert artifact.router.classes == artifact.classes
    assert (artifact.counts("50%"), artifact.rho("50%", "text")) == ((10, 6, 5), 0.7)
    assert set(verify_files(GOLDEN_2)) == {MANIFEST, *manifest.files}


def test_an_artifact_of_format_1_is_written_in_format_2(tmp_path):
    artifact = read_artifact(GOLDEN)
    again = read_artifact(write_artifact(artifact, tmp_path / "a") and tmp_path / "a")
    apart = {"format", "prompt_hash", "files", "id"}
    assert again.manifest.model_dump(exclude=apart) == artifact.manifest.model_dump(exclude=apart)
    assert (artifact.manifest.format, again.manifest.format) == (1, 2)
    assert (artifact.manifest.prompt_hash, again.manifest.prompt_hash) == (None, hashed(artifact.manifest.prompt))
    assert np.array_equal(again.alphas, artifact.alphas)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(checkpoint=None), "checkpoint: format 1 has no such field"),
        (lambda c: c.update(method="clasp"), "method: format 1 has no such field"),
        (lambda c: c["budgets"][0]["choices"]["text"].update(posterior=POSTERIOR), "are not of format 1"),
        (lambda c: c["budgets"][0].update(measured=MEASURED), "are not of format 1"),
    ],
)
def test_fields_of_format_2_are_refused_in_format_1(tmp_path, change, message):
    shutil.copytree(GOLDEN, tmp_path / "a")
    sealed(tmp_path / "a", change)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tmp_path / "a")


POSTERIOR = {"candidates": ["a"], "probabilities": [1.0]}
MEASURED = {
    "samples": "1" * 64,
    "split": "test",
    "seed": 0,
    "checkpoint": {"kind": "files", "digest": "2" * 64},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(profile="input"), "profile: 'input' is for a newer version"),
        (lambda c: c.update(profile="input", needs="0.3.0"), "profile: 'input' is for 0.3.0"),
        (lambda c: c.update(seeding="farthest"), "seeding: 'farthest' is for"),
        (lambda c: c.update(method="fastv"), "method: 'fastv' is for"),
        (lambda c: c.update(knobs={"k": 2.0}), "knobs: .* is for"),
        (lambda c: c.update(later=1, needs="0.3.0"), "later: .*; it says that it needs clasp-calib '0.3.0'"),
        (lambda c: c.update(prompt_hash="0" * 64), "prompt_hash: is not the sha256 of the prompt"),
        (lambda c: c.update(checkpoint={"kind": "files", "digest": "x"}), r"checkpoint\.digest: "),
        (lambda c: posterior(c, probabilities=[0.9, 0.2]), r"posterior: the probabilities sum to 1\.1"),
        (lambda c: posterior(c, probabilities=[0.9]), "posterior: 1 probabilities for 2 candidates"),
        (lambda c: posterior(c, candidates=["a", "a"]), "posterior: the candidate 'a' is listed more than once"),
    ],
)
def test_what_this_version_cannot_honour_is_refused_and_never_ignored(tmp_path, change, message):
    shutil.copytree(GOLDEN_2, tmp_path / "a")
    sealed(tmp_path / "a", change)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tmp_path / "a")


def posterior(content, **change):
    content["budgets"][0]["choices"]["object"]["posterior"].update(change)


def test_the_shipped_schema_is_that_of_the_manifest():
    shipped = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert shipped == json_schema(), "write it anew with `python -m clasp_calib.artifacts.schema`"


def test_the_schema_names_every_key_of_the_golden_artifact():
    assert set(json.loads((GOLDEN_2 / MANIFEST).read_text())) == set(json_schema()["properties"])


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
