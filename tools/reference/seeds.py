"""Measure reference models of several seeds under settings fixed in advance, and write them side by side.

    python -m tools.reference.seeds --work DIR --models seed-0=DIR seed-1=DIR large=DIR --out PAGE.md

measures what is not measured yet and writes the page. With ``--shard i/n`` it only measures a part of the pictures, so
that several processes can share the work; run it without afterwards. What the report measured is not measured again.
"""

import argparse
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from clasp_calib.common.errors import InputError
from clasp_calib.common.progress import console
from clasp_calib.common.samples import CLASSES
from clasp_calib.common.scripts import ended
from clasp_calib.reference.benchmark import VERSION
from tools.reference.by_design import BY_DESIGN
from tools.reference.measure import measure, shard_of
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.evidence import LEVEL, RESAMPLES, Paired
from tools.reference.measuring.requirements import fixed_requirements
from tools.reference.measuring.results import BLIND, Results
from tools.reference.measuring.seed_plan import MIXTURE, RHO, macro_differences, rho_differences, seed_plan
from tools.reference.measuring.settings import UNPRUNED
from tools.reference.measuring.tables import accuracy, points, table
from tools.reference.report import results_of

SPLIT, PICTURES = "test", 200
SEED = "seed"
"""Names of the models that differ in the seed alone begin with this."""
INTRODUCTION = """# The embedded model, by seed

Written by `python -m tools.reference.seeds`; do not edit.

Does what [the report](reference-report.md) says of the embedded model depend on its seed? These models were compared.
{sizes}

The models called *{seed}* were trained by `python -m tools.reference.train` and differ only in `--seed`. The seed
decides the initial weights of the tower (including its frozen block), of the projector and of the decoder, and the
pictures and questions of every training step. The set of training scenes, the tokenizer and the architecture are the
same. [embedded-model.md](../design/embedded-model.md) says which of the models is the embedded one, and why.

All settings are the same for all models and classes, and no selection split is used. Where the report takes a class's
best ratio or mixture, this page takes rho {rho:g} or `{mixture}`. They were fixed after the report on an earlier model
and before these models were measured.

Measured on benchmark v{benchmark} with torch {torch} in float32 on the CPU ({machine}): {samples} questions about the
first {pictures} pictures of the test split, at least {fewest} a class, the same for all models. Accuracies are in
percent, differences in percentage points. Brackets are 95 % bootstrap intervals by picture ({resamples:,} resamples);
they show how much chance varies over pictures for one model. Mean ± standard deviation is over the models called
*{seed}*.

{by_design}
"""
Quantities = Mapping[str, Paired]


@dataclass(frozen=True)
class Seeds:
    """All that the page says."""

    sizes: Mapping[str, str]
    """Name of a model -> how large it is."""
    models: Mapping[str, Results]
    """Name of a model -> what was measured of it, on the same questions."""

    def markdown(self) -> str:
        """The page.

        Raises:
            InputError: something was not measured.
        """
        test = next(iter(self.models.values()))
        parts = [
            INTRODUCTION.format(
                sizes=" ".join(f"*{name}*: {size}." for name, size in self.sizes.items()),
                seed=SEED,
                rho=RHO,
                mixture=MIXTURE,
                benchmark=VERSION,
                torch=torch.__version__,
                machine=platform.machine(),
                samples=len(test.samples),
                pictures=test.pictures,
                fewest=test.fewest,
                resamples=test.resamples,
                by_design=BY_DESIGN,
            ),
            "## Requirements\n\nThe requirements of the report that can be checked without choosing a setting:\n",
            self._requirements(),
            "## Accuracy by class\n\nWithout pruning; *blind* is trained on the questions alone:\n",
            self._by_model("class", lambda of: of.mean(UNPRUNED), accuracy, {"blind": test.mean(BLIND)}),
            "## Losses and gains\n\nMeans over classes, except where one is named. "
            f"Layer 1 is compared at rho {RHO:g}:\n",
            self._by_model("difference", macro_differences, lambda one: points(one, test=False)),
            "## Rho 0 minus rho 1\n\nCoverage alone minus relevance alone, by budget and class. "
            f"A star marks p < {LEVEL:g}, two-sided, corrected by Holm over the classes of a budget:\n",
            self._by_model("budget, class", rho_differences, _starred),
        ]
        return "\n".join(parts)

    def _requirements(self) -> str:
        found = {name: fixed_requirements(of, MIXTURE, RHO) for name, of in self.models.items()}
        rows = [
            (
                f"{alike[0].number}. {alike[0].title}",
                alike[0].asked,
                *(f"{'met' if one.met else '**NOT met**'}: {one.found}" for one in alike),
            )
            for alike in zip(*found.values(), strict=True)
        ]
        return table(("", "asked", *found), rows)

    def _by_model(
        self,
        what: str,
        measured: Callable[[Results], Quantities],
        cell: Callable[[Paired], str],
        before: Mapping[str, Quantities] | None = None,
    ) -> str:
        """A line a quantity, a column a model, and one for all seeds if there are two; other columns stand before."""
        columns = {name: measured(of) for name, of in self.models.items()}
        seeds = [of for name, of in columns.items() if name.startswith(SEED)]
        header, rows = [what, *(before or {}), *columns], []
        if many := len(seeds) > 1:
            header.append(f"{len(seeds)} seeds, mean ± sd")
        shown = [*(before or {}).values(), *columns.values()]
        for name in next(iter(columns.values())):
            values = [100 * of[name].difference for of in seeds]
            spread = [f"{mean(values):.1f} ± {stdev(values):.1f}"] if many else []
            rows.append([name, *(cell(of[name]) for of in shown), *spread])
        return table(header, rows)


def _starred(one: Paired) -> str:
    return points(one, test=False) + (" *" if one.p < LEVEL else "")


def models_of(given: Sequence[str]) -> dict[str, Path]:
    """Name -> directory of each ``NAME=DIR``.

    Raises:
        InputError: one is malformed, a name is given twice, or there is no such directory.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, _, place = text.partition("=")
        if not name or not place:
            raise InputError(f"{text!r} names no model; expected NAME=DIR, as in {SEED}-1=models/{SEED}-1")
        if name in found:
            raise InputError(f"two models are called {name!r} ({found[name]} and {place}); give each its own name")
        found[name] = Path(place)
    for name, directory in found.items():
        if not (directory / "config.json").is_file():
            raise InputError(
                f"there is no model in {directory} for {name!r} (no config.json); "
                f"train one with `python -m tools.reference.train --out {directory}`"
            )
    return found


def size_of(model: Any) -> str:
    """What a reader knows a model's size by."""
    decoder = model.config.text_config
    return (
        f"{model.num_parameters() / 1e6:.1f} million parameters, "
        f"a decoder of {decoder.num_hidden_layers} layers of width {decoder.hidden_size}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure what is not measured yet, and write the page if that was all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="where measurements are kept; the report's can be used"
    )
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=DIR", help="directories of models, named")
    parser.add_argument("--out", type=Path, required=True, help="the page")
    parser.add_argument("--test", type=int, default=PICTURES, help=f"pictures of the test split (default {PICTURES})")
    parser.add_argument("--shard", type=shard_of, help="i/n: measure the i-th of n parts, from 0, and write no page")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap (default {RESAMPLES})")
    given = parser.parse_args(arguments)
    if given.resamples < 1:
        raise InputError(f"cannot draw {given.resamples} resamples; give at least 1 with --resamples")
    sizes, found = {}, {}
    for name, directory in models_of(given.models).items():
        console.print(f"{name}: {directory}", markup=False, highlight=False, soft_wrap=True)
        bench = Bench.open(given.work, directory)
        measure(bench, SPLIT, given.test, seed_plan(CLASSES), given.shard or (0, 1))
        if given.shard is None:
            sizes[name], found[name] = size_of(bench.model), results_of(bench, SPLIT, given.test, given.resamples)
    if given.shard is None:
        page = Seeds(sizes, found).markdown()
        try:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {given.out} ({error}); give another place with --out") from error


if __name__ == "__main__":
    sys.exit(ended(main))
