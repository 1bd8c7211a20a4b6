"""Record what every candidate scores on every sample: benchmarks/data/recorded_scores.npz.

Draws pictures of the embedded benchmark, caches the embedded model's vision layers, and measures the default mixtures
times rho 0.1 to 1.0 on the classes asked for, at a budget of 64 tokens, until the seconds for a class are used up:

    python benchmarks/record_scores.py [--classes text,spatial] [--seconds 300] [--run DIR]

Stored are, for each class, ``<class>_score`` (uint8) and ``<class>_nll`` (float16, nats), both [samples, candidates],
and once ``alpha`` [candidates, layers], ``rho`` and ``name``.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from clasp_calib.cache.encode import auto_layers, cache_features
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.evaluator import Evaluator, Pruning
from clasp_calib.calib.features import CachedFeatures
from clasp_calib.calib.prompting import Prompter
from clasp_calib.common.samples import read_table, samples_of
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.pruner import schedule_for
from clasp_calib.search.space import default_space

BUDGET = "64"
OUT = Path(__file__).parent / "data" / "recorded_scores.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="text,spatial")
    parser.add_argument("--pictures", type=int, default=400, help="to draw; each has at most one question of a class")
    parser.add_argument("--seconds", type=float, default=300, help="for a class")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(str(MODEL))
    adapter = adapter_for(model)
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    space = default_space(layers, adapter.own_layer).model_copy(update={"rhos": tuple(n / 10 for n in range(1, 11))})
    candidates = space.candidates(adapter.vision_layers, adapter.own_layer)
    pruning = Pruning(schedule_for(model, BUDGET))
    stored = {
        "alpha": np.array([candidate.alpha for candidate in candidates], np.float32),
        "rho": np.array([candidate.rho for candidate in candidates], np.float32),
        "name": np.array([candidate.name for candidate in candidates]),
    }
    with tempfile.TemporaryDirectory() as directory:
        path = write_benchmark(Path(directory) / "benchmark", {"calibration": arguments.pictures})
        table = read_table(path)
        samples = samples_of(table, path.parent)
        gold = table["gold_class"].to_pylist()
        for label in arguments.classes.split(","):
            of = [sample for sample, slug in zip(samples, gold, strict=True) if slug == label]
            cache_features(model, processor, of, layers, Path(directory) / "cache")
            store = FeatureStore.open(Path(directory) / "cache")
            prompter = Prompter(processor, adapter.tokens_per_image)
            evaluator = Evaluator(model, prompter, CachedFeatures(store, layers))
            begun, found = time.perf_counter(), []
            for sample in of:
                found.append(evaluator.scores(sample, candidates, pruning))
                if time.perf_counter() - begun > arguments.seconds:
                    break
            stored[f"{label}_score"] = np.array([scores.score for scores in found], np.uint8)
            stored[f"{label}_nll"] = np.array([scores.nll for scores in found], np.float16)
            print(f"{label}: {len(found)} samples of {len(of)}, {time.perf_counter() - begun:.0f} s", flush=True)
            arguments.out.parent.mkdir(exist_ok=True)
            np.savez_compressed(arguments.out, **stored)


if __name__ == "__main__":
    main()
