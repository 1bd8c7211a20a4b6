"""Measure the committed results table: docs/results/calibration.md with its picture, and the summary in README.md.

Calibrates the embedded model at 192, 128 and 64 tokens on a larger draw of the embedded benchmark than the
quickstart's, and compares on its test split. Run with `make bench`.
"""

import argparse
import io
import json
import platform
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from clasp_calib import __version__
from clasp_calib.cli import run
from clasp_calib.reference.benchmark import VERSION as BENCHMARK, write_benchmark
from clasp_calib.reference.model import VERSION as MODEL
from tools.reference.blind import blind_accuracy

ROOT = Path(__file__).parent.parent
BUDGETS = ("192", "128", "64")
SETTINGS = ("unpruned", "default", "random", "calibrated")
NOTE = """# Results on the embedded benchmark

Written by `benchmarks/reference_table.py`; do not edit.

Measured on embedded model v{model} and benchmark v{benchmark}, with clasp-calib {version} and torch {torch}, in
float32 on {threads} CPU threads ({machine}); {minutes:.0f} minutes in all. {calibration} pictures to calibrate on,
{selection} to select on and {test} to test on; no picture is in two splits. Classes are those of the keyword labels,
which agree with the true classes on {agreement:.1%} of the questions. A model trained on the questions alone scores
{prior:.1f} (macro over true classes).

Scores are exact-match accuracies in percent, with 95 % bootstrap intervals by picture. The last column is the paired
difference on the same questions.

- *unpruned*: all 576 tokens.
- *default*: the model's own vision layer and rho = 1 (relevance only).
- *random*: the same number of tokens, chosen at random.
- *calibrated*: the mixture and rho that the search chose for each class.
- *seconds an answer*: median of {timed} answers at batch 1, from the pixels on. Compare them within one table only, and
  only if the machine did nothing else.

"""
SUMMARY = re.compile(r"(<!-- results:begin -->\n).*(<!-- results:end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "clasp-run" / "reference-table")
    parser.add_argument("--calibration", type=int, default=60, help="pictures")
    parser.add_argument("--selection", type=int, default=40, help="pictures")
    parser.add_argument("--test", type=int, default=120, help="pictures")
    parser.add_argument("--timed", type=int, default=20, help="answers to time for each setting")
    arguments = parser.parse_args()
    pictures = {split: getattr(arguments, split) for split in ("calibration", "selection", "test")}
    begun = time.perf_counter()
    table = write_benchmark(arguments.run / "benchmark", pictures)
    at = ["--run", str(arguments.run)]
    labelled = command("label", str(table), *at)
    command("cache-features", *at)
    command("search", *at, *(word for budget in BUDGETS for word in ("--budget", budget)))
    evaluation = command("evaluate", *at, "--timed", str(arguments.timed))
    note = NOTE.format(
        model=MODEL,
        benchmark=BENCHMARK,
        version=__version__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        minutes=(time.perf_counter() - begun) / 60,
        agreement=labelled["agreement"],
        prior=100 * blind_accuracy("test", pictures["test"])["macro"],
        timed=arguments.timed,
        **pictures,
    )
    measured = arguments.run / "report" / "evaluation-test.md"
    page = ROOT / "docs" / "results" / "calibration.md"
    page.write_text(note + measured.read_text(encoding="utf-8"), encoding="utf-8")
    shutil.copy(measured.with_suffix(".png"), page.with_suffix(".png"))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(SUMMARY.sub(lambda found: found[1] + summary(evaluation) + found[2], text), encoding="utf-8")


def command(*arguments: str) -> dict[str, Any]:
    """Run one command with ``--json`` and return what it printed; of events, one a line, the last."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = run([*arguments, "--json"])
    if code:
        raise SystemExit(code)
    text = printed.getvalue()
    result: dict[str, Any] = json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
    return result


def summary(evaluation: Mapping[str, Any]) -> str:
    """Macro scores of all budgets as a Markdown table."""
    lines = [
        f"Mean accuracy over the nine classes on the embedded benchmark's test split (version {MODEL}), in percent,",
        "and gain in points, with 95 % intervals, as `make bench` measured them. **The embedded model was built so",
        "that mixtures help and random pruning hurts**, so the table shows that a search finds what is there, not how",
        "much a real model gains. By class, with tokens and times: [calibration.md](docs/results/calibration.md).",
        "",
        f"| budget | {' | '.join(SETTINGS)} | calibrated - default |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for result in evaluation["budgets"]:
        scores = [interval(result["scores"][setting]["macro"], "") for setting in SETTINGS]
        gain = interval(result["gain"]["macro"], "+")
        lines.append(f"| {result['budget']} of 576 tokens | {' | '.join(scores)} | {gain} |")
    return "\n".join(lines) + "\n"


def interval(value: Mapping[str, float], sign: str) -> str:
    mean, low, high = (f"{100 * value[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
