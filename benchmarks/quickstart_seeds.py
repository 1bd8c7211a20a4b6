"""Run the quickstart with several seeds, each on pictures of its own, and write docs/results/quickstart-seeds.md.

    python benchmarks/quickstart_seeds.py [--seeds 10] [--run DIR] [--pictures 36 32]

A seed takes some minutes on two cores. A killed benchmark goes on where it stopped.
"""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from clasp_calib import __version__
from clasp_calib.artifacts.manifest import CALIBRATED, MACRO
from clasp_calib.calib.studies.evaluation import DEFAULT, RANDOM, UNPRUNED
from clasp_calib.cli import run
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.reference.model import VERSION
from tools.reference.by_design import BY_DESIGN
from tools.reference.idle_blocks import without_idle_blocks

ROOT = Path(__file__).resolve().parents[1]
BUDGET, GLOBAL = "192", "global"
OTHERS = (DEFAULT, RANDOM, GLOBAL)
SETTINGS = (UNPRUNED, *OTHERS, CALIBRATED)
NOTE = """# The quickstart with other seeds

Written by `benchmarks/quickstart_seeds.py`; do not edit. clasp-calib {version}, version {model} of the embedded model,
{budget} tokens. Each of the {seeds} seeds draws pictures of its own: {search} to search on, {test} to test on.

{by_design}

- *unpruned*: all 576 tokens.
- *default*: the model's own vision layer and rho = 1 (relevance only).
- *random*: the same number of tokens, chosen at random, the mean of three draws.
- *global*: the one setting that the search found best over all classes.
- *calibrated*: the mixture and rho that the search chose for each class.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "bench" / "quickstart")
    parser.add_argument("--pictures", type=int, nargs=2, default=(36, 32))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "quickstart-seeds.md")
    arguments = parser.parse_args()
    found = [scores(arguments.run, seed, arguments.pictures) for seed in range(arguments.seeds)]
    search, test = arguments.pictures
    of = {"by_design": BY_DESIGN.strip(), "seeds": len(found), "search": search, "test": test}
    note = NOTE.format(version=__version__, model=VERSION, budget=BUDGET, **of)
    arguments.out.write_text(note + macros(found) + "\n\n" + by_class(found) + "\n", encoding="utf-8")


def scores(place: Path, seed: int, pictures: Sequence[int]) -> dict[str, dict[str, float]]:
    """Setting -> class or ``macro`` -> mean score in percent that the quickstart found with this seed."""
    kept = place / f"seed-{seed}.json"
    if not kept.is_file():
        printed = io.StringIO()
        at = ["--run", str(place / f"seed-{seed}"), "--pictures", *map(str, pictures)]
        with redirect_stdout(printed), without_idle_blocks():
            code = run(["quickstart", "--budget", BUDGET, "--seed", str(seed), *at, "--json"])
        if code:
            raise SystemExit(code)
        kept.write_text(printed.getvalue(), encoding="utf-8")
    (entry,) = json.loads(kept.read_text(encoding="utf-8"))["artifact"]["budgets"]
    results: Mapping[str, Any] = entry["results"]
    return {name: {label: 100 * of["mean"] for label, of in results[name].items()} for name in SETTINGS}


def macros(found: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """Mean accuracy over the classes: one row a seed, and their mean with its standard error."""
    body = [[str(seed), *(f"{of[name][MACRO]:.1f}" for name in SETTINGS)] for seed, of in enumerate(found)]
    columns = np.array([[of[name][MACRO] for name in SETTINGS] for of in found]).T
    errors = [float(column.std(ddof=1) / len(column) ** 0.5) if len(column) > 1 else 0.0 for column in columns]
    means = [f"{column.mean():.1f} ± {error:.1f}" for column, error in zip(columns, errors, strict=True)]
    body.append(["mean", *means])
    return (
        "Mean accuracy over the nine classes in percent; behind ± stands the standard error of the mean over seeds.\n\n"
        + markdown_table(["seed", *SETTINGS], body)
    )


def by_class(found: Sequence[Mapping[str, Mapping[str, float]]]) -> str:
    """How often the calibrated setting is below another, class by class, and by how much on average."""
    body = []
    for label in found[0][CALIBRATED]:
        gains = {name: np.array([of[CALIBRATED][label] - of[name][label] for of in found]) for name in OTHERS}
        cells = [f"{gain.mean():+.1f} ({int((gain < -1e-9).sum())} of {len(gain)})" for gain in gains.values()]
        body.append([label, *cells])
    return (
        "Calibrated minus another setting in points, the mean over seeds; in brackets the number of seeds in which it "
        "is below.\n\n" + markdown_table(["class", *(f"calibrated - {name}" for name in OTHERS)], body)
    )


if __name__ == "__main__":
    main()
