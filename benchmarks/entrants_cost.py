"""What it costs to answer a question under all settings of an evaluation, together and each alone.

    python benchmarks/entrants_cost.py [--budget 192] [--pictures 6]

On the embedded model and benchmark: no pruning, default pruning, the paper's ratio, two mixtures, and random pruning
three times. All ways take turns on every picture, so that a drift of the machine's speed hits all alike; "times" is the
median over pictures of a way's time divided by that of all together. Beside them stands how many scores differ.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import Sample
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model

LAYERS = (1, 3, 5, 6)
Way = Callable[[Sample], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="192")
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, processor = load_model(str(MODEL))
    adapter = adapter_for(model)

    def mixture(weights: dict[int, float], rho: float) -> Candidate:
        return Candidate("", tuple(weights.get(i, 0.0) for i in range(adapter.vision_layers + 1)), rho)

    own = mixture({adapter.own_layer: 1.0}, 1.0)
    chosen = [own, replace(own, rho=0.7), mixture({1: 0.5, 6: 0.5}, 0.5), mixture({3: 0.5, 6: 0.5}, 0.25)]
    drawn = [replace(own, drawn=draw) for draw in range(3)]
    pruned, whole = Pruning(schedule_for(model, arguments.budget)), Pruning(None)
    with tempfile.TemporaryDirectory() as directory:
        table = write_benchmark(Path(directory), {"test": arguments.pictures})
        samples = load_samples(table)
        cache_features(model, processor, samples, Path(directory) / "cache", FeatureOptions(layers=LAYERS))
        store = FeatureStore.open(Path(directory) / "cache")
        features = CachedFeatures(store, LAYERS)

        def scored(shared: bool, *groups: tuple[Sequence[Candidate], Pruning]) -> Way:
            kept = Evaluator(model, Prompter(processor, model), features)

            def way(sample: Sample) -> list[float]:
                evaluator = kept if shared else Evaluator(model, Prompter(processor, model), features)
                return [score for of, pruning in groups for score in evaluator.scores(sample, of, pruning).score]

            return way

        ways = {
            "together": scored(True, ([own], whole), ([*chosen, *drawn], pruned)),
            "each setting alone": scored(True, ([own], whole), *(([one], pruned) for one in (*chosen, *drawn))),
            "random pruning alone": scored(True, ([own], whole), (chosen, pruned), *(([one], pruned) for one in drawn)),
            "the picture read for each question": scored(False, ([own], whole), ([*chosen, *drawn], pruned)),
        }
        report(ways, samples)
        store.close()


def report(ways: dict[str, Way], samples: Sequence[Sample]) -> None:
    """Let all ways take turns on every picture, and print a table."""
    pictures = {sample.picture: [o for o in samples if o.picture == sample.picture] for sample in samples}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    differ = dict.fromkeys(ways, 0)
    for way in ways.values():
        way(samples[0])
    for questions in pictures.values():
        found = {}
        for name, way in ways.items():
            begun = time.process_time()
            found[name] = [score for question in questions for score in way(question)]
            spent[name].append((time.process_time() - begun) / len(questions))
        for name, scores in found.items():
            differ[name] += sum(one != other for one, other in zip(scores, found["together"], strict=True))
    print("| way | ms a question | times | other scores |\n|---|---:|---:|---:|")
    for name, of in spent.items():
        times = statistics.median(one / other for one, other in zip(of, spent["together"], strict=True))
        print(f"| {name} | {1000 * statistics.median(of):.0f} | {times:.2f} | {differ[name]} |")


if __name__ == "__main__":
    main()
