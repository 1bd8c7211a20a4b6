"""What the search's decisions are worth, replayed on recorded tables and on simulated ones with known means.

    python benchmarks/search.py [--part decisions] [--draws 20] [--seed 1000] [--out PAGE]

writes docs/results/decisions.md unless it is given another page; a part replaces its own section and leaves the others.
The recorded tables are those of benchmarks/record_scores.py. Settings were chosen on other questions.
"""

import argparse
import os
import platform
import re
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import numpy as np
from replay import budgets, crossover, decisions, hardship, promise, shares, sureness
from replay.tables import BUDGETS, RECORDED, budgets_of, recorded

from clasp_calib.reference.model import VERSION
from tools.reference.by_design import BY_DESIGN

Part = Callable[[Executor, range, Path, Path], str]
PARTS: dict[str, tuple[Part, int]] = {
    "decisions": (lambda pool, draws, path, out: decisions.section(pool, draws, path), 20),
    "hard": (lambda pool, draws, path, out: hardship.section(pool, draws, path), 18),
    "sureness": (lambda pool, draws, path, out: sureness.section(pool, draws, path), 9),
    "shares": (lambda pool, draws, path, out: shares.section(pool, draws, path, out.with_suffix(".png")), 8),
    "budgets": (lambda pool, draws, path, out: budgets.section(pool, draws, path), 6),
    "crossover": (lambda pool, draws, path, out: crossover.section(pool, draws), 6),
    "race": (lambda pool, draws, path, out: promise.section(pool, draws), 40),
}
"""By name: what writes the section, and how many draws it makes unless it is told."""
NOTE = """# What the search's decisions are worth

Written by `benchmarks/search.py`; do not edit. [decision.md](../design/decision.md) explains how the search decides.

{recorded}

{by_design}

"""


TABLES = (
    "The recorded tables are of version {version} of the embedded model: {candidates} candidates on {samples} of each "
    "of {classes} classes, at {budgets} tokens (`benchmarks/record_scores.py`).{lacking} Intervals are over draws from "
    "them. They say how much the luck of the draw matters. The luck of the recorded questions is in all draws, and "
    "other models are other models."
)


def note(path: Path) -> str:
    """What stands above all sections."""
    tables = [recorded(budget, path) for budget in budgets_of(path)]
    sizes = sorted({len(score) for of in tables for score in of.score})
    missing = [budget for budget in BUDGETS if budget not in budgets_of(path)]
    said = TABLES.format(
        version=VERSION,
        candidates=len(tables[0].candidates),
        samples=f"{sizes[0]} questions" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} questions",
        classes=len(tables[0].labels),
        budgets=", ".join(budgets_of(path)),
        lacking=f" Budgets that are not recorded yet: {', '.join(missing)}." if missing else "",
    )
    return NOTE.format(recorded=textwrap.fill(said, 120, break_long_words=False), by_design=BY_DESIGN.strip())


def write(out: Path, name: str, section: str, above: str) -> None:
    """Put one part's section in its place on the page, and leave the others."""
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    found = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end -->\n", text, re.DOTALL))
    found[name] = section
    parts = "\n".join(f"<!-- {part} -->\n{found[part]}<!-- end -->\n" for part in PARTS if part in found)
    out.write_text(above + parts, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all")
    parser.add_argument("--draws", type=int, help="of each kind; default: as many as fit into some minutes")
    parser.add_argument("--seed", type=int, default=1000, help="of the first draw")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="tables as record_scores.py stores them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "results" / "decisions.md")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(arguments.workers) as pool:
        for name in arguments.part or PARTS:
            begun = time.perf_counter()
            part, usual = PARTS[name]
            seeds = range(arguments.seed, arguments.seed + (arguments.draws or usual))
            section = part(pool, seeds, arguments.recorded, arguments.out).rstrip()
            minutes = (time.perf_counter() - begun) / 60
            print(f"{name}: {minutes:.1f} minutes with {arguments.workers} workers", flush=True)
            done = f"Seeds {seeds.start} to {seeds.stop - 1}; numpy {np.__version__}, {platform.machine()}."
            write(arguments.out, name, f"{section}\n\n{done}\n", note(arguments.recorded))


if __name__ == "__main__":
    main()
