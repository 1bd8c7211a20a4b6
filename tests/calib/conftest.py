"""A model that speaks, with pictures whose layers are cached."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from speaking_models import QUESTIONS, THINGS, load_speaking, speaking_llava_directory, write_picture

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.samples import Sample

LAYERS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Bench:
    model: Any
    processor: Any
    prompter: Prompter
    store: FeatureStore
    samples: tuple[Sample, ...]
    """Six pictures with three questions each; answers are up to the test."""


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    root: Path = tmp_path_factory.mktemp("bench")
    model, processor = load_speaking(speaking_llava_directory(root / "model", seed=0))
    samples = tuple(
        Sample(f"{thing}-{label}", question.format(thing), write_picture(root / f"{thing}.png", number), label=label)
        for number, thing in enumerate(THINGS)
        for label, question in QUESTIONS.items()
    )
    cache_features(model, processor, samples, root / "cache", FeatureOptions(layers=LAYERS))
    return Bench(model, processor, Prompter(processor, model), FeatureStore.open(root / "cache"), samples)
