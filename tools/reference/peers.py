"""Ask published pruning methods questions of the test split, and say which are under random pruning.

    python -m tools.reference.peers --work DIR --pictures 24 --methods fastv dart

goes on where it stopped. `tools.reference.report` has the same table of all methods among the requirements.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clasp_calib.baselines.registry import METHODS
from clasp_calib.common.scripts import ended
from clasp_calib.reference.model import MODEL
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.peers import PICTURES, RANDOM, ask_peers
from tools.reference.measuring.results import MACRO
from tools.reference.measuring.tables import accuracy, points, table


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure what is not measured yet, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where measurements are kept")
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of the model (default: the embedded one)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help=f"of the test split (default {PICTURES})")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="(default: all)")
    given = parser.parse_args(arguments)
    peers = ask_peers(Bench.open(given.work, given.model), given.pictures, given.methods)
    columns = [*peers.results.classes, MACRO]
    rows = []
    for name in (RANDOM, *peers.methods):
        means = peers.results.mean(name)
        gain = "" if name == RANDOM else points(peers.gain(name), test=False)
        rows.append((name, *(accuracy(means[label]) for label in columns), gain))
    print(table(("method", *columns, f"minus {RANDOM}"), rows))


if __name__ == "__main__":
    sys.exit(ended(main))
