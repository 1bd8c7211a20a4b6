"""Record what every candidate scores on every sample: benchmarks/data/recorded_scores.npz.

Draws pictures of the embedded benchmark, caches the embedded model's vision layers, and measures the default mixtures
times rho 0.1 to 1.0 on the classes asked for, at a budget of 64 tokens, until the seconds for a class are used up:

    python benchmarks/record_scores.py [--classes counting,text] [--seconds 450]

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
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.dataset import by_class, calibration_samples, of_split
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.commands.label import label
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL
from clasp_calib.router_labeling.taxonomy import load_taxonomy
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.search.space import default_space

BUDGET = "64"
OUT = Path(__file__).parent / "data" / "recorded_scores.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="counting,text")
    parser.add_argument("--pictures", type=int, default=260, help="to draw")
    parser.add_argument("--samples", type=int, help="of a class, at most")
    parser.add_argument("--seconds", type=float, default=450, help="for a class")
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
        root = Path(directory)
        label(write_benchmark(root / "benchmark", {"calibration": arguments.pictures}), run=root)
        classes = load_taxonomy(None).classes
        samples = of_split(calibration_samples(load_samples(RunDirectory(root).labels), classes), "calibration")
        # The order in which a search with seed 0 would see them.
        in_order = by_class(samples, classes, len(samples), 0)
        for slug in arguments.classes.split(","):
            of = in_order[slug][: arguments.samples]
            cache_features(model, processor, of, root / "cache", FeatureOptions(layers=layers))
            store = FeatureStore.open(root / "cache")
            prompter = Prompter(processor, model)
            evaluator = Evaluator(model, prompter, CachedFeatures(store, layers))
            begun, found = time.perf_counter(), []
            for sample in of:
                found.append(evaluator.scores(sample, candidates, pruning))
                if time.perf_counter() - begun > arguments.seconds:
                    break
            stored[f"{slug}_score"] = np.array([scores.score for scores in found], np.uint8)
            stored[f"{slug}_nll"] = np.array([scores.nll for scores in found], np.float16)
            print(f"{slug}: {len(found)} samples of {len(of)}, {time.perf_counter() - begun:.0f} s", flush=True)
            arguments.out.parent.mkdir(exist_ok=True)
            np.savez_compressed(arguments.out, **stored)


if __name__ == "__main__":
    main()
