"""Measure what a calibration is worth on the embedded model: docs/results/calibration.md, and the table in README.md.

Calibrates at 192, 128 and 64 tokens on a larger draw of the embedded benchmark than the quickstart's, and evaluates on
its test split, a budget at a time. Killed, it goes on where it stopped. Run with `make bench PART=table`.
"""

import argparse
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from steps import command, kept

from clasp_calib import __version__
from clasp_calib.artifacts.artifact import Artifact
from clasp_calib.artifacts.manifest import BudgetEntry
from clasp_calib.common.hashing import sha256_json
from clasp_calib.reference.benchmark import VERSION as BENCHMARK, write_benchmark
from clasp_calib.reference.model import VERSION as MODEL
from tools.reference.blind import blind_accuracy
from tools.reference.by_design import BY_DESIGN
from tools.reference.idle_blocks import without_idle_blocks

ROOT = Path(__file__).parent.parent
BUDGETS = ("192", "128", "64")
SETTINGS = ("unpruned", "default", "random", "calibrated")
NOTE = """# What a calibration is worth on the embedded model

Written by `benchmarks/reference_table.py`; do not edit.

Measured on version {model} of the embedded model and version {benchmark} of its benchmark, with clasp-calib {version}
and torch {torch}, in float32 ({machine}). {pool} pictures to calibrate on and {test} others to test on. Classes are
those of the keyword labels, which agree with the true classes on {agreement:.1%} of the questions. A model trained on
the questions alone scores {prior:.1f} (macro over true classes).

{by_design}

What was searched, with the default strategy and the default space:

{searched}
Scores are exact-match accuracies in percent, with 95 % bootstrap intervals by picture. The last column is the paired
difference on the same questions.

- *unpruned*: all 576 tokens.
- *default*: the model's own vision layer and rho = 1 (relevance only).
- *random*: the same number of tokens, chosen at random, three times.
- *calibrated*: what the search chose for each class.
- *paper rho*: the model's own layer with the paper's rho of each class.
- *global*: the one setting for all classes that the search believes best.

"""
SUMMARY = """\
Mean accuracy over the nine classes on {test} pictures of the embedded benchmark's test split, in percent, and gain in
points, with 95 % intervals, as `make bench` measured them (version {model} of the model). **The embedded model was
built so that mixtures help and random pruning hurts**, so the table shows that a search finds what is there, not how
much a real model gains. By class: [calibration.md](docs/results/calibration.md).

"""
MARKED = re.compile(r"(<!-- results:begin -->\n).*(<!-- results:end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "reference-table")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results", help="directory of the page")
    parser.add_argument("--readme", type=Path, help="also put the summary between the marks of this file")
    parser.add_argument("--pool", type=int, default=120, help="pictures to calibrate on")
    parser.add_argument("--test", type=int, default=120, help="pictures to test on")
    arguments = parser.parse_args()
    table = write_benchmark(arguments.run / "benchmark", {"calibration": arguments.pool, "test": arguments.test})
    at = ["--run", str(arguments.run)]
    labelled = command("label", str(table), *at)
    command("cache-features", *at)
    with without_idle_blocks():
        command("search", *at, *(word for budget in BUDGETS for word in ("--budget", budget)))
    artifact = Artifact.load(arguments.run / "artifact")
    entries = [artifact.entry(budget) for budget in BUDGETS]

    def evaluated(budget: str) -> dict[str, Any]:
        with without_idle_blocks():
            found = command("evaluate", *at, "--budget", budget, "--timed", "0")
        return {**found["budgets"][0], "table": Path(found["report"]).read_text(encoding="utf-8")}

    of = digest(entries)
    found = {b: kept(arguments.run / f"evaluation-{of}-{b}.json", lambda b=b: evaluated(b)) for b in BUDGETS}
    note = NOTE.format(
        model=MODEL,
        benchmark=BENCHMARK,
        version=__version__,
        torch=torch.__version__,
        machine=platform.machine(),
        agreement=labelled["agreement"],
        prior=100 * blind_accuracy("test", arguments.test)["macro"],
        by_design=BY_DESIGN,
        searched=searched(entries),
        pool=arguments.pool,
        test=arguments.test,
    )
    page = arguments.pages / "calibration.md"
    page.write_text(note + "\n\n".join(of["table"].strip() for of in found.values()) + "\n", encoding="utf-8")
    if arguments.readme:
        text = arguments.readme.read_text(encoding="utf-8")
        filled = SUMMARY.format(test=arguments.test, model=MODEL) + summary(found, entries)
        arguments.readme.write_text(MARKED.sub(lambda marks: marks[1] + filled + marks[2], text), encoding="utf-8")


def digest(entries: Sequence[BudgetEntry]) -> str:
    """Of what was chosen, without what was measured of it since."""
    return sha256_json([entry.model_dump(mode="json", include={"name", "choices"}) for entry in entries])[:12]


def searched(entries: Sequence[BudgetEntry]) -> str:
    """How much each budget's search measured, as a Markdown table."""
    lines = ["| budget | candidates a class | questions a class | evaluations | of an exhaustive search |"]
    lines.append("|---|---:|---:|---:|---:|")
    for entry in entries:
        choices = entry.choices.values()
        questions = sum(choice.samples or 0 for choice in choices) / len(choices)
        candidates = ", ".join(str(n) for n in sorted({choice.candidates for choice in choices}))
        spent = sum(choice.evaluations for choice in choices)
        lines.append(f"| {entry.name} | {candidates} | {questions:.0f} | {spent:,} | {share(entry):.0%} |")
    return "\n".join(lines) + "\n"


def share(entry: BudgetEntry) -> float:
    """Evaluations of a search as a share of all candidates on all questions."""
    choices = entry.choices.values()
    return sum(c.evaluations for c in choices) / max(1, sum(c.candidates * (c.samples or 0) for c in choices))


def summary(found: Mapping[str, Mapping[str, Any]], entries: Sequence[BudgetEntry]) -> str:
    """Macro scores of all budgets as a Markdown table."""
    lines = [f"| budget | {' | '.join(SETTINGS)} | calibrated - default | searched |", "|---|" + "---:|" * 6]
    for entry in entries:
        result = found[entry.name]
        scores = [interval(result["scores"][setting]["macro"], "") for setting in SETTINGS]
        gain, spent = interval(result["gain"]["macro"], "+"), f"{share(entry):.0%} of all evaluations"
        lines.append(f"| {entry.name} of 576 tokens | {' | '.join(scores)} | {gain} | {spent} |")
    return "\n".join(lines) + "\n"


def interval(value: Mapping[str, float], sign: str) -> str:
    mean, low, high = (f"{100 * value[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
