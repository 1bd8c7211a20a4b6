"""What a second worker brings: samples that one process and two processes score in a second, one thread each.

    .venv/bin/python benchmarks/search_scaling.py

The limit is the number of cores: two workers are at most twice as fast as one, less what they share of the memory's
bandwidth and the last cache. Turns alternate, so that a drift of the machine hits both; models are loaded and the first
tasks are scored before the clock starts.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from clasp_calib.cache.encode import cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.score_tasks import EvaluatorRecipe, ModelRecipe, ScoreTask
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.crew.local_workers import Processes
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, PROMPT
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.search.space import default_space

LAYERS = (1, 2, 4, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="64")
    parser.add_argument("--tasks", type=int, default=32, help="samples of a turn")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measured(Path(folder), arguments.budget, arguments.tasks, arguments.turns)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    for count, took in seconds.items():
        print(f"{count} worker(s): {arguments.tasks / statistics.median(took):.2f} samples a second (median of turns)")
    print(f"two are {statistics.median(ratios):.2f} times as fast as one ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{os.cpu_count()} cores; load average of the last minute at the end: {os.getloadavg()[0]:.1f}")


def measured(folder: Path, budget: str, count: int, turns: int) -> dict[int, list[float]]:
    """Seconds of each turn by number of workers."""
    table = write_benchmark(folder, {"calibration": max(2, count // 8)})
    samples = load_samples(table)[:count]
    model, processor = load_model(str(MODEL))
    cache_features(model, processor, samples, folder / "cache", FeatureOptions(layers=LAYERS))
    adapter = adapter_for(model)
    space = default_space(LAYERS, adapter.own_layer)
    schedule = schedule_for(model, budget)
    candidates = tuple(space.candidates(adapter.vision_layers, adapter.own_layer))
    tasks = [ScoreTask(sample, candidates, Pruning(schedule)) for sample in samples]
    recipe = EvaluatorRecipe(ModelRecipe.of(model, processor, 1), PROMPT, folder / "cache", LAYERS)
    print(f"{len(tasks)} samples of {len(candidates)} candidates at budget {budget}, {turns} turns")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with closing(Processes(recipe, 1)) as one, closing(Processes(recipe, 2)) as two:
        for workers in (one, two):
            list(workers.do(tasks[:4]))
        for turn in range(turns):
            for workers in (one, two) if turn % 2 else (two, one):
                begun = time.perf_counter()
                found = list(workers.do(tasks))
                seconds[workers.count].append(time.perf_counter() - begun)
                assert len(found) == len(tasks)
    return seconds


if __name__ == "__main__":
    main()
