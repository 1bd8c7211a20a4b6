"""Artifacts made by hand, for tests."""

import hashlib
import json
from dataclasses import replace

import numpy as np
from tiny_models import tiny_llava

from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.choices import ChoiceRule, ClassChoice, Posterior, Sureness, mean_regret
from clasp_calib.artifacts.files import MANIFEST
from clasp_calib.artifacts.manifest import BudgetEntry, Decoding, Manifest, Provenance, hashed
from clasp_calib.artifacts.model_shape import model_shape
from clasp_calib.common.hashing import sha256_json

CONFIG = tiny_llava(decoder_layers=17).config
SHAPE = model_shape(CONFIG)
PROMPT = "<image>{question} ÄÖ"
CLASSES = ("object", "text", "default")
VERDICT = Sureness(
    gain=0.125, low=-0.0625, high=0.25, worse=0.0625, much_worse=0.03125, regret=0.005, own=0.25, settle=40
)
CHOICE = ClassChoice(
    prototype="deep",
    candidates=20,
    evaluations=100,
    samples=40,
    calibration=0.5,
    calibration_samples=20,
    default=0.25,
    default_samples=16,
    verdict=VERDICT,
    posterior=Posterior(candidates=("deep/rho=0.7", "own/rho=1"), probabilities=(0.75, 0.125)),
)
PROVENANCE = Provenance(
    samples="1" * 64,
    labels="4" * 64,
    cache_encoder="weights:ab",
    space="2" * 64,
    taxonomy="3" * 64,
    strategy="halving",
    metric="exact",
    seed=0,
    versions={"clasp-calib": "0.1.0"},
)


def made(*budgets: str, seed: int = 0, **changes: object) -> Artifact:
    """An artifact with random numbers for these budgets; ``changes`` are of the manifest."""
    rng = np.random.default_rng(seed)
    shape = (len(budgets), len(CLASSES))
    alphas = rng.dirichlet(np.ones(SHAPE.vision_layers + 1), size=shape).astype(np.float32)
    choices = dict.fromkeys(CLASSES, CHOICE)
    decision = ChoiceRule(method="pooled", regret=mean_regret(choices.values()))
    entries = tuple(
        BudgetEntry(name=name, counts=(10, 6, 5), mean_tokens=8.0, choices=choices, decision=decision)
        for name in budgets
    )
    manifest = Manifest(
        name="tiny-clasp",
        model="tiny",
        shape=SHAPE,
        fingerprint=SHAPE.fingerprint,
        classes=CLASSES,
        default_class="default",
        taxonomy={"object_identification": "object", "text_recognition": "text", "other": "default"},
        starts=(2, 6, 15),
        tau=1.0,
        raters="sparsevlm",
        positions="keep",
        features="projected",
        iterations=5,
        prompt=PROMPT,
        prompt_hash=hashed(PROMPT),
        decoding=Decoding(do_sample=False, max_new_tokens=16),
        budgets=entries,
        provenance=dict.fromkeys(budgets, PROVENANCE),
        files={},
    )
    rhos = (rng.integers(0, 11, size=shape) / 10).astype(np.float32)
    return Artifact(manifest.model_copy(update=changes), alphas, rhos)


def with_numbers(artifact: Artifact, **arrays: np.ndarray) -> Artifact:
    """The artifact with other arrays."""
    return replace(artifact, **arrays)


def sealed(place, change=lambda content: None):
    """Change the manifest and make all hashes fit again, as somebody who means harm would."""
    content = json.loads((place / MANIFEST).read_text())
    for name in content["files"]:
        content["files"][name] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    change(content)
    content["id"] = sha256_json({key: value for key, value in content.items() if key != "id"})
    (place / MANIFEST).write_text(json.dumps(content))
