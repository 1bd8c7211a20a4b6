"""Measure what a calibration is worth where pictures differ in size: docs/results/many-sizes.md.

Calibrates the sibling, a small Qwen3-VL, at 50 % and 33 % of each picture's tokens on a draw of the embedded benchmark
in nine sizes, and evaluates on its test split. Killed, it goes on where it stopped. Run with `make bench PART=sizes`.
"""

import argparse
import platform
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import torch
from reference_table import searched

import clasp_calib as cc
from clasp_calib.reference.benchmark import VERSION as BENCHMARK, write_benchmark
from tools.reference.blind import blind_hits
from tools.reference.by_design import BY_DESIGN
from tools.reference.idle_blocks import leave_out_idle_blocks
from tools.sibling.model import VERSION as MODEL, WEIGHTS, load
from tools.sibling.shape import TRAINED, UNSEEN, pixels

ROOT = Path(__file__).parent.parent
BUDGETS = ("50%", "33%")
NOTE = """# Pictures of many sizes

Written by `benchmarks/many_sizes.py`; do not edit.

The sibling of the embedded model is a small Qwen3-VL: pictures of any size, positions by M-RoPE, no class token.
[many-sizes-model.md](../design/many-sizes-model.md) tells how it was trained. Measured on its version {model} and on
version {benchmark} of the benchmark, with clasp-calib {version} and torch {torch}, in float32 ({machine}). The pictures
have one of {sizes} sizes, from {least} to {most} tokens; of two sizes ({unseen} patches) training showed none. {pool}
pictures to calibrate on and {test} others to test on. Classes are those of the keyword labels. Guessing from a
question's words alone scores {prior:.1f} (macro over true classes).

{by_design}

What was searched, with the default strategy and the default space:

{searched}
Scores are exact-match accuracies in percent, with 95 % bootstrap intervals by picture. The last column is the paired
difference on the same questions. Settings are those of [calibration.md](calibration.md).

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "many-sizes")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results", help="directory of the page")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of the sibling")
    parser.add_argument("--pool", type=int, default=120, help="pictures to calibrate on")
    parser.add_argument("--test", type=int, default=120, help="pictures to test on")
    arguments = parser.parse_args()
    grids = (*TRAINED, *UNSEEN)
    pictures = {"calibration": arguments.pool, "test": arguments.test}
    table = write_benchmark(arguments.run / "benchmark", pictures, sizes=[pixels(grid) for grid in grids])
    model, processor = load(arguments.weights)
    leave_out_idle_blocks(model)
    samples = cc.label(cc.load_samples(table), run=arguments.run)
    artifact = cc.calibrate(model, processor, samples, BUDGETS, run=arguments.run)
    options = cc.EvaluationOptions(timed=0)
    report = cc.evaluate(model, processor, artifact, samples, run=arguments.run, options=options)
    counts = [rows * columns for rows, columns in grids]
    note = NOTE.format(
        model=MODEL,
        benchmark=BENCHMARK,
        version=cc.__version__,
        torch=torch.__version__,
        machine=platform.machine(),
        sizes=len(grids),
        least=min(counts),
        most=max(counts),
        unseen=" and ".join(f"{rows} x {columns}" for rows, columns in UNSEEN),
        prior=100 * prior(table),
        by_design=BY_DESIGN,
        searched=searched([artifact.entry(budget) for budget in BUDGETS]),
        pool=arguments.pool,
        test=arguments.test,
    )
    page = arguments.pages / "many-sizes.md"
    page.write_text(note + report.to_markdown().strip() + "\n", encoding="utf-8")


def prior(table: Path) -> float:
    """Mean accuracy over the true classes of guessing about the test split without looking."""
    samples = [sample for sample in cc.load_samples(table) if sample.split == "test"]
    true = {row["id"]: row["gold_class"] for row in pq.read_table(table, columns=["id", "gold_class"]).to_pylist()}
    by_class: dict[str, list[bool]] = defaultdict(list)
    for sample, hit in zip(samples, blind_hits(samples), strict=True):
        by_class[true[sample.id]].append(hit)
    return sum(sum(hits) / len(hits) for hits in by_class.values()) / len(by_class)


if __name__ == "__main__":
    main()
