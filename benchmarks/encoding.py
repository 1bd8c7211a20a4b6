"""Where the time of cache-features goes, and how long the encoder waits for the cache.

    python benchmarks/encoding.py [--pictures 256] [--batch 8] [--workers 0 2] [--rounds 3] [--threads 1]

Encodes pictures of the embedded benchmark with the embedded model, each round into a new cache in a temporary
directory, and prints shares of the encoder's clock: at work, waiting for pictures, waiting for the cache (for room to
hand over a batch, and at the end for the last one). Times are wall times, so on a machine that does other things too
they show its load; the shares of one run are comparable.

Physical limit. The writer has a thread of its own, and what it does, a checksum and a copy into the page cache, lets go
of Python's lock. So the encoder waits only for what is handed over last, unless the disk takes fewer bytes a second
than the encoder makes: a batch's write time over the run's time from below, the ratio of both speeds from above.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch

from clasp_calib.cache.cache_report import Times
from clasp_calib.cache.encode import auto_layers, cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.commands.models import load
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.runtime.adapters import adapter_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="0 stands for threads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model, processor = load("reference", "cpu", "float32")
    adapter = adapter_for(model)
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        table = write_benchmark(Path(folder) / "benchmark", {"calibration": asked.pictures})
        samples = load_samples(table)
        print(f"{asked.pictures} pictures, layers {layers}, batches of {asked.batch}; shares of the encoder's clock")
        for workers in asked.workers:
            runs = []
            for number in range(asked.rounds):
                root = Path(folder) / f"{workers}-{number}"
                report = cache_features(
                    model,
                    processor,
                    samples,
                    root,
                    FeatureOptions(layers=layers, batch_size=asked.batch, workers=workers),
                )
                runs.append(report.times)
            name = f"{workers} processes" if workers else "threads"
            results[name] = shown(name, runs)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2))


def shown(name: str, runs: list[Times]) -> dict[str, float]:
    """Print and return the medians over rounds."""
    clocks = [times.encode + times.wait_for_pictures + times.wait_for_cache for times in runs]

    def share(field: str) -> float:
        return statistics.median(getattr(times, field) / clock for times, clock in zip(runs, clocks, strict=True))

    found = {field: share(field) for field in ("encode", "wait_for_pictures", "wait_for_cache")}
    beside = {field: share(field) for field in ("decode", "preprocess", "write")}
    worst = max(times.share_waited_for_cache for times in runs)
    print(
        f"  {name:12} encoding {found['encode']:.1%}, waiting for pictures {found['wait_for_pictures']:.1%}, for the "
        f"cache {found['wait_for_cache']:.2%} (at most {worst:.2%}); beside it decoding {beside['decode']:.1%}, "
        f"preprocessing {beside['preprocess']:.1%}, writing {beside['write']:.1%}; {statistics.median(clocks):.1f} s",
        flush=True,
    )
    return {**found, **beside, "wait_for_cache_at_most": worst, "seconds": statistics.median(clocks)}


if __name__ == "__main__":
    main()
