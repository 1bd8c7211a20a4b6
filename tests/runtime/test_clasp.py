import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from reference_decoder import reference_rows
from runtime_cases import SCHEDULE, fingerprint, generated, model
from tiny_models import tiny_batch

import clasp_calib
from clasp_calib.artifacts import files
from clasp_calib.common.errors import ArtifactError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.pruner import clasp

MIXTURES = {"object": (0.0, 0.0, 0.25, 0.75, 0.0), "text": (0.0, 0.5, 0.0, 0.0, 0.5)}
SHARES = {"object": 0.8, "text": 0.2}


@dataclass
class Stub:
    """What `clasp` reads of an artifact."""

    starts: tuple[int, ...] = SCHEDULE.starts
    raters: str = "all"
    positions: str = "compact"
    features: str = "projected"
    iterations: int = 3

    def counts(self, budget):
        return {"7": SCHEDULE.counts}[budget]

    def alpha(self, budget, label):
        return MIXTURES[label]

    def rho(self, budget, label):
        return SHARES[label]


@pytest.fixture(autouse=True)
def _any_model_fits(monkeypatch):
    monkeypatch.setattr(files, "check_fits", lambda artifact, config: None)


@pytest.mark.parametrize("classes", [["object", "text", "object"], ["text"] * 3])
def test_runs_as_the_artifact_says(classes):
    batch, adapter = tiny_batch(model()), adapter_for(model())
    with torch.no_grad():
        layers_BLTC = adapter.capture(model(), batch["pixel_values"])
        alpha_BL = torch.tensor([MIXTURES[c] for c in classes], dtype=torch.float64)
        features = adapter.project(model(), fuse(layers_BLTC, alpha_BL))
    settings = {"raters": "all", "positions": "compact", "iterations": 3}
    rho = [SHARES[c] for c in classes]
    rows = reference_rows(model(), batch, SCHEDULE, rho, features=features, **settings)
    before = fingerprint(model())
    with clasp(model(), Stub(), budget=7, classes=classes) as pruner:
        assert generated(model(), batch) == [row.generate(6) for row in rows]
    assert pruner.stats.stages[0].kept(0) == rows[0].kept[0]
    assert fingerprint(model()) == before


def test_one_class_serves_every_row():
    batch = tiny_batch(model())
    with clasp(model(), Stub(), budget="7", classes="text"):
        one = generated(model(), batch)
    with clasp(model(), Stub(), budget="7", classes=["text"] * 3):
        assert generated(model(), batch) == one


def test_an_artifact_of_another_model_is_refused(monkeypatch):
    def refuse(artifact, config):
        raise ArtifactError("made for another")

    monkeypatch.setattr(files, "check_fits", refuse)
    with pytest.raises(ArtifactError, match="another"), clasp(model(), Stub(), budget=7, classes="text"):
        pass


def test_a_path_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "read_artifact", {tmp_path: Stub()}.__getitem__)
    batch = tiny_batch(model())
    with clasp(model(), tmp_path, budget=7, classes="object") as pruner:
        generated(model(), batch)
    assert len(pruner.stats.stages) == 3


def test_importing_the_packages_loads_nothing_heavy():
    code = (
        "import sys, clasp_calib, clasp_calib.runtime, clasp_calib.baselines\n"
        "sys.exit(sorted({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_offers_both_doors():
    from clasp_calib.runtime import pruner

    assert clasp_calib.clasp is pruner.clasp
    assert clasp_calib.prune is pruner.prune
    assert not hasattr(clasp_calib, "nothing")
