"""What other versions and other programs rely on: a golden artifact of each format, and the shipped JSON Schema."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden_format_2 import golden
from made_artifacts import VERDICT, sealed

from clasp_calib.artifacts.artifact import read_artifact
from clasp_calib.artifacts.checkpoint_digest import Checkpoint
from clasp_calib.artifacts.choices import ChoiceRule, Sureness
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
    """Once a version has written this format, never make it anew either."""
    artifact = read_artifact(GOLDEN_2)
    manifest = artifact.manifest
    assert manifest.id == (GOLDEN_2 / "id.txt").read_text().strip()
    assert manifest.checkpoint == Checkpoint(kind="files", digest="c" * 64)
    assert (manifest.method, manifest.knobs, manifest.profile, manifest.seeding) == (
        "clasp",
        {},
        "layered",
        "redundancy",
    )
    assert [artifact.seeding("8", label) for label in artifact.classes] == ["k-center", "redundancy", "redundancy"]
    assert artifact.entry("8").alternatives["global"]["text"].seeding == "farthest"
    assert manifest.prompt_hash == hashed(manifest.prompt)
    assert manifest.needs is None
    posterior = artifact.entry("8").choices["object"].posterior
    assert (posterior.candidates, posterior.probabilities) == (("deep/rho=0.7", "own/rho=1"), (0.75, 0.125))
    choices = artifact.entry("8").choices
    assert choices["object"].verdict == Sureness(
        gain=0.125, low=-0.0625, high=0.25, worse=0.0625, much_worse=0.03125, regret=0.005, own=0.25, settle=40
    )
    assert (choices["text"].verdict.leader, choices["text"].verdict.own) == ("deep/rho=0.7", None)
    assert (choices["default"].verdict, choices["default"].calibration) == (None, None)
    seen = choices["object"]
    assert (seen.samples, seen.calibration_samples, seen.default, seen.default_samples) == (40, 20, 0.25, 16)
    decision = artifact.entry("8").decision
    assert decision == ChoiceRule(method="pooled", regret=0.005, cautious=0.3, budgets=("50%",))
    assert artifact.entry("50%").decision == ChoiceRule(method="james-stein", regret=0.005)
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
        (lambda c: c["budgets"][0]["choices"]["text"].update(posterior=POSTERIOR), "posterior: is not of format 1"),
        (lambda c: c["budgets"][0]["choices"]["text"].update(seeding="farthest"), "seeding: is not of format 1"),
        (lambda c: c["budgets"][0]["choices"]["text"].update(default=0.5), "default: is not of format 1"),
        (lambda c: c["budgets"][0].update(decision=DECISION), "decision: is not of format 1"),
        (lambda c: c["budgets"][0].update(measured=MEASURED), r"measured\.checkpoint: is not of format 1"),
    ],
)
def test_fields_of_format_2_are_refused_in_format_1(tmp_path, change, message):
    shutil.copytree(GOLDEN, tmp_path / "a")
    sealed(tmp_path / "a", change)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tmp_path / "a")


DECISION = {"method": "pooled", "regret": 0.0}
POSTERIOR = {"candidates": ["a"], "probabilities": [1.0]}
MEASURED = {
    "samples": "1" * 64,
    "split": "test",
    "seed": 0,
    "checkpoint": {"kind": "files", "digest": "2" * 64},
}


def rated(content, every, one):
    """The same in the profile ``input``, all classes rated by ``every`` but ``text``."""
    content.update(profile="input", relevance=every, starts=[0])
    for entry in content["budgets"]:
        entry["counts"] = entry["counts"][:1]
    content["budgets"][0]["choices"]["text"].update(relevance=one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(profile="tower"), "profile: 'tower' is for a newer version"),
        (lambda c: c.update(profile="tower", needs="0.3.0"), "profile: 'tower' is for 0.3.0"),
        (lambda c: c.update(profile="input"), "relevance: None does not go with the profile 'input'"),
        (lambda c: c.update(relevance="none"), "relevance: 'none' does not go with the profile 'layered'"),
        (lambda c: c.update(profile="input", relevance="cls"), "relevance: 'cls' is for a newer version"),
        (lambda c: c.update(profile="input", relevance="none"), "starts: .* whose one stage is at layer 0"),
        (lambda c: c.update(seeding="relevance"), "seeding: 'relevance' is for a newer version"),
        (lambda c: c["budgets"][0]["choices"]["text"].update(seeding="x"), "budgets.8.seeding: 'x' is for a newer"),
        (lambda c: c["budgets"][0]["choices"]["text"].update(downsample=0.5), "downsample: pictures have 16 tokens in"),
        (
            lambda c: c["budgets"][0]["choices"]["text"].update(downsample=1.0),
            "downsample: Input should be less than 1",
        ),
        (lambda c: c["budgets"][0]["choices"]["text"].update(relevance="x"), "budgets.8.relevance: 'x' is for a newer"),
        (
            lambda c: c["budgets"][0]["choices"]["text"].update(relevance="class-token"),
            "budgets.8.relevance: 'class-token' of a class does not go with None of the others",
        ),
        (
            lambda c: rated(c, "none", "class-token"),
            "relevance: 'class-token' of a class does not go with 'none' of the others",
        ),
        (
            lambda c: rated(c, "class-token", "none"),
            "relevance: 'none' of a class does not go with 'class-token' of the others",
        ),
        (
            lambda c: c["budgets"][0]["alternatives"]["global"]["text"].update(seeding="x", rho=0.5),
            "budgets.8.seeding: 'x' is for a newer",
        ),
        (lambda c: c.update(method="fastv"), "method: 'fastv' is for"),
        (lambda c: c.update(knobs={"k": 2.0}), "knobs: .* is for"),
        (lambda c: c.update(later=1, needs="0.3.0"), "later: .*; it says that it needs clasp-calib '0.3.0'"),
        (lambda c: c.update(prompt_hash="0" * 64), "prompt_hash: is not the sha256 of the prompt"),
        (lambda c: c.update(checkpoint={"kind": "files", "digest": "x"}), r"checkpoint\.digest: "),
        (lambda c: posterior(c, probabilities=[0.9, 0.2]), r"posterior: the probabilities sum to 1\.1"),
        (lambda c: posterior(c, probabilities=[0.9]), "posterior: 1 probabilities for 2 candidates"),
        (lambda c: posterior(c, candidates=["a", "a"]), "posterior: the candidate 'a' is listed more than once"),
        (lambda c: verdict(c, low=0.5), r"verdict: the interval from 0\.5 to 0\.25 is empty"),
        (lambda c: verdict(c, much_worse=0.5), r"verdict: much_worse: 0\.5 is more than worse, 0\.0625"),
        (lambda c: verdict(c, worse=1.5), r"verdict\.worse: .*1 \(given 1\.5\)"),
        (lambda c: verdict(c, regret=-0.1), r"verdict\.regret: "),
        (lambda c: verdict(c, regret=0.25), r"decision\.regret: 0\.005 is not the mean of the verdicts, 0\.1275"),
        (lambda c: verdict(c, settle=-1), r"verdict\.settle: "),
        (lambda c: verdict(c, leader="a\x1b[2J"), r"verdict\.leader: "),
        (lambda c: verdict(c, gain="much"), r"verdict\.gain: "),
        (lambda c: verdict(c, more=1), r"verdict\.more: Extra inputs"),
        (lambda c: decision(c, method="guess"), r"decision\.method: "),
        (lambda c: decision(c, cautious=2.0), r"decision\.cautious: "),
        (lambda c: decision(c, budgets=["8"]), "the budget '8' is listed more than once"),
        (lambda c: decision(c, budgets=["../8"]), r"decision\.budgets\.0: "),
        (lambda c: choice(c, samples=-1), r"choices\.object\.samples: "),
        (lambda c: choice(c, default_samples=0.5), r"choices\.object\.default_samples: "),
        (lambda c: c["budgets"][0]["choices"].update(cats=None), r"choices\.cats: "),
    ],
)
def test_what_this_version_cannot_honour_is_refused_and_never_ignored(tmp_path, change, message):
    shutil.copytree(GOLDEN_2, tmp_path / "a")
    sealed(tmp_path / "a", change)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tmp_path / "a")


@pytest.mark.parametrize("field", ["gain", "low", "high", "worse", "much_worse", "regret", "own"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_verdict_holds_numbers_only(tmp_path, field, value):
    shutil.copytree(GOLDEN_2, tmp_path / "a")
    path = tmp_path / "a" / MANIFEST
    content = json.loads(path.read_text())
    verdict(content, **{field: "HERE"})
    path.write_text(json.dumps(content).replace('"HERE"', value))
    with pytest.raises(ArtifactError):
        read_artifact(tmp_path / "a")
    with pytest.raises(ValueError, match="finite number"):
        Sureness(**{**VERDICT.model_dump(), field: float(value)})


def choice(content, **change):
    content["budgets"][0]["choices"]["object"].update(change)


def posterior(content, **change):
    content["budgets"][0]["choices"]["object"]["posterior"].update(change)


def verdict(content, **change):
    content["budgets"][0]["choices"]["object"]["verdict"].update(change)


def decision(content, **change):
    content["budgets"][0]["decision"].update(change)


def test_only_what_format_1_recorded_is_written_of_a_final(tmp_path):
    old = read_artifact(GOLDEN)
    write_artifact(old, tmp_path / "old")
    again = json.loads((tmp_path / "old" / MANIFEST).read_text())["budgets"][0]["choices"]["object"]
    assert again["selection"] == old.entry("8").choices["object"].selection == 0.25
    new = json.loads((GOLDEN_2 / MANIFEST).read_text())["budgets"][0]["choices"]["object"]
    assert not {"selection", "selection_default", "confirmation", "refinement"} & set(new)


def test_the_script_makes_the_golden_artifact(tmp_path):
    """Where a library writes other bytes of the same rows, other hashes follow; everything else is the same."""
    made_now, kept = golden().manifest, read_artifact(GOLDEN_2).manifest
    apart = {"files", "id"}
    assert made_now.model_dump(exclude=apart) == kept.model_dump(exclude=apart)


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
