"""A run directory in which every command has been given once, on a model that speaks."""

from pathlib import Path

import pytest
from ready_runs import Ready, copy_of, well
from speaking_models import speaking_llava_directory, write_samples

SPACE = "rhos: [0.5, 1.0]\nprototypes: [{name: own, weights: {3: 1}}, {name: mixed, weights: {1: 0.5, 3: 0.5}}]\n"


@pytest.fixture(scope="session")
def begun(tmp_path_factory) -> Ready:
    """A model, samples, and a run directory with their labels."""
    root: Path = tmp_path_factory.mktemp("begun")
    model = speaking_llava_directory(root / "model", decoder_layers=17)
    samples = write_samples(root / "data", {"calibration": 4, "selection": 3, "test": 3})
    ready = Ready(model, samples, root / "run", {})
    well(["label", str(samples), "--run", str(ready.run)])
    (ready.run / "small.yaml").write_text(SPACE)
    return ready


@pytest.fixture(scope="session")
def finished(begun, tmp_path_factory) -> Ready:
    """The whole path, each command without ``--json``."""
    ready = copy_of(begun, tmp_path_factory.mktemp("finished"))
    target = ready.run
    space = ["--space", str(target / "small.yaml")]
    path = {
        "label": ["label", str(begun.samples), "--run", str(target)],
        "cache-features": ["cache-features", *ready.words],
        "search": ["search", *ready.words, *space, "--budget", "50%", "--budget", "6"],
        "evaluate": ["evaluate", *ready.words, "--timed", "1"],
        "artifact show": ["artifact", "show", "--run", str(target)],
        "generate": ["generate", *ready.words, "--image", str(ready.picture), "--prompt", "How many?", "--compare"],
    }
    for name, words in path.items():
        ready.said[name] = well(words)
    return ready


@pytest.fixture
def copied(finished, tmp_path) -> Ready:
    """A copy of the finished run directory that a test may change."""
    return copy_of(finished, tmp_path)
