"""A tiny model that speaks, and labelled samples for it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from speaking_models import load_speaking, speaking_llava_directory, write_samples

import clasp_calib as cc


@dataclass(frozen=True)
class Bench:
    directory: Path
    """Of the model."""
    model: Any
    processor: Any
    samples: list[cc.Sample]


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    root = tmp_path_factory.mktemp("api")
    directory = speaking_llava_directory(root / "model", decoder_layers=17)
    rows = [json.loads(line) for line in write_samples(root, {"calibration": 4, "selection": 3, "test": 3}).open()]
    samples = [
        cc.Sample(
            row["id"],
            row["question"],
            root / row["image"],
            tuple(row["answers"]),
            split=row["split"],
            label=row["gold_class"],
        )
        for row in rows
    ]
    return Bench(directory, *load_speaking(directory), samples)


@pytest.fixture(scope="session")
def options() -> cc.CalibrationOptions:
    """A small search."""
    prototypes = (cc.Prototype(name="own", weights={3: 1}), cc.Prototype(name="mixed", weights={1: 0.5, 3: 0.5}))
    space = cc.SearchSpace(prototypes=prototypes, rhos=(0.5, 1.0))
    return cc.CalibrationOptions(strategy=cc.Halving(first=2), space=space)


@pytest.fixture(scope="session")
def untouched(tmp_path_factory) -> Path:
    """The current directory while `artifact` was calibrated."""
    return tmp_path_factory.mktemp("untouched")


@pytest.fixture(scope="session")
def artifact(bench, options, untouched) -> cc.Artifact:
    """Calibrated in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(untouched)
        return cc.calibrate(bench.model, bench.processor, bench.samples, [6, "50%"], options=options)
