"""What it costs that every read is checked: reading and searching, before and after, in turns within one run.

Run from the repository's root, with the commit that the working tree is compared with:

    .venv/bin/python benchmarks/check_cost.py COMMIT [--rounds 5] [--pictures 24] [--directory DIR]

Both sides fill a cache of their own; then they take turns, each in a process that has loaded everything. Reading:
mixtures of 4 layers of CLIP ViT-L/14-336 (576 x 1024, float16) from the page cache, by CPU time. Searching: the
embedded model scores every candidate of the default space on the same questions from its cache, by CPU time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LAYERS, TOKENS, CHANNELS, CHOSEN = tuple(range(8)), 576, 1024, (1, 3, 4, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as place:
        code = Path(place) / "code"
        subprocess.run(["git", "worktree", "add", "--detach", code, given.commit], cwd=ROOT, check=True)
        try:
            sides = [_started(path, Path(place) / name, given.pictures) for path, name in ((code, "b"), (ROOT, "a"))]
            found = [[_turn(side) for side in sides] for _ in range(given.rounds)]
            for side in sides:
                side.communicate()
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", code], cwd=ROOT, check=True)
    for what in found[0][0]:
        ratios = [before[what] / after[what] for before, after in found]
        median = [statistics.median(turn[side][what] for turn in found) * 1e3 for side in (0, 1)]
        print(
            f"{what:8} {median[0]:9.3f} ms before, {median[1]:9.3f} ms after; speed {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f} .. {max(ratios):.2f}]"
        )


def _started(code: Path, place: Path, pictures: int) -> "subprocess.Popen[str]":
    variables = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, __file__, "--measure", place, str(pictures)]
    side = subprocess.Popen(words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _answer(side)
    return side


def _turn(side: "subprocess.Popen[str]") -> dict[str, float]:
    assert side.stdin is not None
    side.stdin.write("\n")
    side.stdin.flush()
    return _answer(side)


def _answer(side: "subprocess.Popen[str]") -> Any:
    assert side.stdout is not None
    for line in side.stdout:
        if line.startswith("= "):
            return json.loads(line[2:])
    raise SystemExit("a side ended early")


def reading(place: Path, pictures: int) -> tuple[Callable[[], None], int]:
    """What reads mixtures of made-up features of CLIP's size, and how many."""
    import numpy as np
    import torch

    from clasp_calib.cache.form import Form
    from clasp_calib.cache.precision import PRECISIONS
    from clasp_calib.cache.store import FeatureStore
    from clasp_calib.cache.writer import FeatureWriter

    keys = [f"{number:064x}" for number in range(pictures)]
    noise = torch.Generator().manual_seed(0)
    with FeatureWriter(place / "clip", "e", LAYERS, Form(CHANNELS, PRECISIONS["float16"], TOKENS)) as store:
        for key in keys:
            made = torch.randn(len(LAYERS), TOKENS, CHANNELS, generator=noise)
            store.put([key], [store.precision.encode(made)])
    reader = FeatureStore.open(place / "clip")
    weights_ML = np.full((1, len(CHOSEN)), 0.25, np.float32)

    def read() -> None:
        for key in keys:
            reader.fused(key, CHOSEN, weights_ML)

    return read, len(keys)


def searching(place: Path) -> tuple[Callable[[], None], int]:
    """What scores candidates of the embedded model, and how many."""
    from clasp_calib.cache.encode import auto_layers, cache_features
    from clasp_calib.cache.feature_options import FeatureOptions
    from clasp_calib.calib.dataset import calibration_samples
    from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
    from clasp_calib.calib.scoring.feature_sources import open_source
    from clasp_calib.calib.scoring.prompting import Prompter
    from clasp_calib.cli import run
    from clasp_calib.common.pruning_options import PruningOptions
    from clasp_calib.common.sample_sources import load_samples
    from clasp_calib.common.samples import CLASSES
    from clasp_calib.reference.benchmark import write_benchmark
    from clasp_calib.reference.model import MODEL
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.budgeting import schedule_for
    from clasp_calib.runtime.loading import load_model
    from clasp_calib.search.space import default_space

    model, processor = load_model(str(MODEL))
    adapter = adapter_for(model)
    table = write_benchmark(place / "benchmark", {"calibration": 2})
    run(["label", str(table), "--run", str(place / "run")])
    samples = calibration_samples(load_samples(place / "run" / "labels.parquet"), CLASSES)[:8]
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    candidates = default_space(layers, adapter.own_layer).candidates(adapter.vision_layers, adapter.own_layer)
    cache_features(model, processor, samples, place / "cache", FeatureOptions(layers=layers))
    evaluator = Evaluator(model, Prompter(processor, model), open_source(place / "cache", model, processor).at(layers))
    pruning = Pruning(schedule_for(model, "192", PruningOptions(starts=(2, 6, 15))))

    def search() -> None:
        for sample in samples:
            evaluator.scores(sample, candidates, pruning)

    return search, len(samples) * len(candidates)


def measure(place: Path, pictures: int) -> None:
    """One side: what ``main`` starts."""
    ways = {"a mixture": reading(place, pictures), "a score": searching(place)}
    for function, _ in ways.values():
        function()  # so that nothing is compiled, or read from the disk, while it is measured
    print("= {}", flush=True)
    for _ in sys.stdin:
        found = {}
        for name, (function, count) in ways.items():
            begun = time.process_time()
            function()
            found[name] = (time.process_time() - begun) / count
        print("= " + json.dumps(found), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
