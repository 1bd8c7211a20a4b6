"""Fuzz by hand: ``PYTHONPATH=tests python -m fuzz [TARGET ...] --cases 100000``; exit code 1 if anything was found."""

import argparse
import sys

from fuzz.harness import fuzz
from fuzz.targets import TARGETS


def main() -> int:
    """Run the targets, one after the other, and print a line for each."""
    words = argparse.ArgumentParser(prog="python -m fuzz", description="Give damaged files to whatever reads files.")
    words.add_argument("targets", nargs="*", default=list(TARGETS), help=f"default: all: {', '.join(TARGETS)}")
    words.add_argument("--cases", type=int, default=1000, help="of each target")
    words.add_argument("--first", type=int, default=0, help="number of the first case")
    given = words.parse_args()
    found = 0
    for name in given.targets:
        outcome = fuzz(TARGETS[name], given.cases, given.first)
        print(
            f"{name}: {outcome.cases} cases in {outcome.seconds:.0f} s, {outcome.taken} taken, "
            f"{outcome.refused} refused, "
            f"{len(outcome.findings)} findings",
            flush=True,
        )
        for number, what in sorted(outcome.findings.items()):
            print(f"  {name} {number}: {what}", flush=True)
        found += len(outcome.findings)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
