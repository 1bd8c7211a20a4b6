"""Measure the committed comparison: the tables and the picture of docs/results/comparison.md.

Calibrates the embedded model at 192, 128 and 64 tokens on a small draw of the embedded benchmark, and lets all methods
answer questions of its test split. Killed, it goes on where it stopped.
"""

import argparse
import platform
import re
import shutil
from pathlib import Path

import torch
from steps import command

from clasp_calib import __version__
from clasp_calib.reference.benchmark import VERSION as BENCHMARK, write_benchmark
from clasp_calib.reference.model import VERSION as MODEL
from tools.reference.by_design import BY_DESIGN

ROOT = Path(__file__).parent.parent
BUDGETS = [word for budget in ("192", "128", "64") for word in ("--budget", budget)]
ABLATIONS = ("parts", "routing")
NOTE = """Embedded model v{model}, benchmark v{benchmark}, clasp-calib {version}, torch {torch}, float32, {threads}
thread ({machine}). Calibrated on {pool} pictures; compared on {questions} questions about {test} others, as many of
each class.{prefills}"""
PREFILLS = """ Prefills: median of {timed}; compare them within a table only."""
MEASURED = re.compile(r"(<!-- measured:begin -->\n).*(<!-- measured:end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "comparison")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "results", help="directory of the page")
    parser.add_argument("--pool", type=int, default=60, help="pictures to calibrate on")
    parser.add_argument("--test", type=int, default=80, help="pictures to compare on")
    parser.add_argument("--per-class", type=int, default=60, help="questions a class")
    parser.add_argument("--solve-on", type=int, default=24, help="calibration questions a class to solve knobs on")
    parser.add_argument("--timed", type=int, default=5, help="prefills to time for each method")
    arguments = parser.parse_args()
    pictures = {"calibration": arguments.pool, "test": arguments.test}
    at = ["--run", str(arguments.run)]
    if not (arguments.run / "artifact" / "artifact.json").is_file():
        table = write_benchmark(arguments.run / "benchmark", pictures)
        command("label", str(table), *at)
        command("cache-features", *at)
        command("search", *at, *BUDGETS)
    few = ["--per-class", str(arguments.per_class)]
    solved = ["--solve-on", str(arguments.solve_on)]
    compared = command("compare", *at, *few, *solved, "--timed", str(arguments.timed))
    ablated = [command("ablate", name, *at, *few)["samples"] for name in ABLATIONS]
    note = NOTE.format(
        model=MODEL,
        benchmark=BENCHMARK,
        version=__version__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        pool=arguments.pool,
        test=arguments.test,
        questions=compared["samples"],
        prefills=PREFILLS.format(timed=arguments.timed) if arguments.timed else "",
    )
    write_page(arguments.run / "report", f"{note}\n\n{BY_DESIGN}", max(ablated), arguments.pages)


def write_page(report: Path, note: str, ablated: int, pages: Path) -> None:
    """Put the reports of a run into the page between its marks, and the picture beside it."""
    parts = [note, "![Score against cost](comparison.png)", (report / "comparison-test.md").read_text(encoding="utf-8")]
    parts.append(f"Ablations, on {ablated} questions of the same split:")
    parts += [(report / f"ablation-{name}-test.md").read_text(encoding="utf-8") for name in ABLATIONS]
    page = pages / "comparison.md"
    text = (ROOT / "docs" / "results" / page.name).read_text(encoding="utf-8")
    measured = "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
    page.write_text(MEASURED.sub(lambda found: found[1] + measured + found[2], text), encoding="utf-8")
    shutil.copy(report / "comparison-test.png", page.with_suffix(".png"))


if __name__ == "__main__":
    main()
