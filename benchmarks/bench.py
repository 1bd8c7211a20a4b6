"""Measure the pages of results on the embedded model, part by part.

    python benchmarks/bench.py [PART ...] [--tiny]

Each part is a script of its own that keeps its work in a directory of its own under build/bench/ and goes on where it
was stopped. Without a PART all are measured that are not finished; a PART that is named is run in any case. ``--tiny``
tries all scripts in minutes, with a few pictures, and writes no page into docs/. `make bench PART=table` runs one.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clasp_calib.reference.benchmark import VERSION as BENCHMARK
from clasp_calib.reference.model import VERSION as MODEL

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Part:
    """A script of the repository and what it writes."""

    what: str
    command: str
    """``{work}`` is the part's directory, ``{pages}`` where pages go; in the options below too."""
    tiny: str = ""
    """Options that make it small."""
    whole: str = ""
    """Options of the committed page."""


PARTS = {
    "table": Part(
        "calibration and evaluation at 192, 128 and 64 tokens: calibration.md, and the table of the README",
        "benchmarks/reference_table.py --run {work} --pages {pages}",
        "--pool 6 --test 4",
        "--readme README.md",
    ),
    "sizes": Part(
        "calibration and evaluation of a small Qwen3-VL on pictures of many sizes: many-sizes.md",
        "benchmarks/many_sizes.py --run {work} --pages {pages}",
        "--pool 6 --test 3",
    ),
    "selectors": Part(
        "a search that chooses the method too, beside each method: selectors.md",
        "benchmarks/searched_methods.py --run {work} --pages {pages}",
        "--pool 4 --test 2",
    ),
    "scores": Part(
        "scores of all candidates, which searches are replayed on: benchmarks/data/recorded_scores.npz",
        "benchmarks/record_scores.py --work {work}",
        "--pictures 3 --samples 2 --budgets 192 --workers 1 --out {work}/recorded.npz",
    ),
    "search": Part(
        "what the search's decisions are worth, on those scores: decisions.md",
        "benchmarks/search.py --out {pages}/decisions.md",
        "--part race --draws 1 --workers 1",
    ),
    "quickstart": Part(
        "the quickstart with ten seeds, minutes each: quickstart-seeds.md",
        "benchmarks/quickstart_seeds.py --run {work} --out {pages}/quickstart-seeds.md",
        "--seeds 2 --pictures 4 3",
    ),
    "comparison": Part(
        "published methods beside calibrations, as released and with the mixtures: comparison.md",
        "benchmarks/comparison.py --run {work} --calibrated {work}/../selectors --pages {pages}",
        "--pool 4 --selected-on 2 --test 2 --more 1 --per-class 1 --solve-on 1 --timed 1 --ledger {work}/ledger",
        "--ledger benchmarks/data/comparison",
    ),
    "below-random": Part(
        "which tokens published methods keep, and which part of them loses those that are asked about: below-random.md",
        "benchmarks/kept_where.py --work {work} --pages {pages}",
        "--pictures 1 --budgets 192",
    ),
    "report": Part(
        "what the model has to fulfil: reference-report.md",
        "-m tools.reference.report --work {work} --out {pages}/reference-report.md",
        "--selection 2 --test 2 --challenge 2 --peers 1 --resamples 100",
    ),
    "seeding": Part(
        "what k-means should start from: seeding.md",
        "benchmarks/seeding.py --work {work} --out {pages}/seeding.md",
        "--pictures 2 --budgets 64",
    ),
    "profiles": Part(
        "dropping tokens before the decoder beside dropping them inside: profiles.md",
        "benchmarks/profiles.py --work {work} --out {pages}/profiles.md",
        "--pictures 2 --budgets 64",
        "--budgets 64,192 --pictures 14",
    ),
    "easy-vqa": Part(
        "questions and pictures that it was not made for: easy-vqa.md",
        "benchmarks/easy_vqa.py --work {work} --out {pages}/easy-vqa.md",
        "--questions 6 --pictures 8 --steps 2",
    ),
}


def run(name: str, *, tiny: bool) -> bool:
    """Run a part to its end; whether it got there."""
    part, place = PARTS[name], directory(name, tiny=tiny)
    place.mkdir(parents=True, exist_ok=True)
    pages = place / "pages" if tiny else ROOT / "docs" / "results"
    pages.mkdir(exist_ok=True)
    words = shlex.split(f"{part.command} {part.tiny if tiny else part.whole}".format(work=place, pages=pages))
    print(f"\n{name}: {part.what}\n  {shlex.join(words)}", flush=True)
    begun = time.time()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False)
    minutes = (time.time() - begun) / 60
    if ended.returncode:
        print(f"{name} ended with {ended.returncode} after {minutes:.1f} minutes; the same command goes on", flush=True)
        return False
    (place / "finished.json").write_text(json.dumps({"last run, minutes": round(minutes, 1)}) + "\n", encoding="utf-8")
    print(f"{name} is finished ({minutes:.1f} minutes in this run)", flush=True)
    return True


def directory(name: str, *, tiny: bool) -> Path:
    """Where a part keeps its work; that of another version of model or benchmark lies elsewhere."""
    return BUILD / f"model-{MODEL}-benchmark-{BENCHMARK}{'-tiny' if tiny else ''}" / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or some of {', '.join(PARTS)}")
    parser.add_argument("--tiny", action="store_true", help="try the scripts, and write no page into docs/")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    left = [name for name in PARTS if not (directory(name, tiny=arguments.tiny) / "finished.json").is_file()]
    failed = [name for name in arguments.parts or left if not run(name, tiny=arguments.tiny)]
    if failed:
        sys.exit(f"not finished: {', '.join(failed)}")


if __name__ == "__main__":
    main()
