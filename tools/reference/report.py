"""Measure the reference model and write the page that says what it can do, and what pruning does to it.

    python -m tools.reference.report --work DIR --out docs/results/reference-report.md

goes on where measuring stopped (see `tools.reference.measure`, which several processes may run at once) and
writes the page and, beside it, a plot of the same name.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clasp_calib.common.errors import InputError
from clasp_calib.common.scripts import ended
from clasp_calib.reference.benchmark import VERSION
from tools.reference.blind import blind_hits
from tools.reference.by_design import BY_DESIGN
from tools.reference.measure import (
    PICTURES,
    add_arguments,
    choices_of,
    measure,
    plan_for,
)
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.choosing import Choices
from tools.reference.measuring.evidence import RESAMPLES, Paired
from tools.reference.measuring.peers import PICTURES as PEER_PICTURES, Peers, ask_peers
from tools.reference.measuring.requirements import Requirement, requirements
from tools.reference.measuring.results import BLIND, MACRO, Results, Way
from tools.reference.measuring.score_journal import ScoreJournal
from tools.reference.measuring.settings import BUDGETS, RANDOM, RHOS, SHUFFLED, UNPRUNED, at_rho
from tools.reference.measuring.speed import Speed, measure_speed
from tools.reference.measuring.tables import accuracy, table

COLUMNS = 5
"""Panels beside each other in the plot."""
ENOUGH = 500
"""Questions of every class that a test should have."""
INTRODUCTION = """# The embedded model, measured

Written by `python -m tools.reference.report`; do not edit.

Measured on model `{model}` and benchmark v{benchmark}, with torch {torch} in float32 on the CPU ({machine}). {counts}

Accuracies are in percent, differences in percentage points. Brackets are 95 % bootstrap intervals by picture
({resamples:,} resamples). The best and worst settings were chosen on the selection split and are judged on the test
split, on the same questions. P values are two-sided and corrected by Holm: in 1, 4 and 5 over classes; in 2 over all
comparisons of means, and over all of classes and budgets; in 3 over budgets; in 4 also over the two of a pair; in 6
over stages. The loss of the shallow layer in 5 is a single test.{warning}

{by_design}

- *blind*: a classifier of the question's words alone, trained on training scenes.
- *shuffled*: the model is shown the picture of another scene.
- *best*: the model's own layer with each class's best ratio on the selection split.
- *random*: the same number of tokens at every stage, chosen at random.
"""


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    model: str
    splits: Mapping[str, Results]
    choices: Choices
    speed: Speed
    peers: Peers

    def requirements(self) -> list[Requirement]:
        """What was asked for, and whether it is met."""
        found = requirements(self.splits["selection"], self.splits["test"], self.choices, self.speed)
        return [*found, self.peers.requirement()]

    def markdown(self, plot: str) -> str:
        """The page.

        Args:
            plot: path of the plot, as the page links to it.
        """
        found = self.requirements()
        counts = " ".join(
            f"The {name} split: {len(of.samples)} questions about {of.pictures} pictures, at least {of.fewest} a class."
            for name, of in self.splits.items()
        )
        few = self.splits["test"].fewest < ENOUGH
        parts = [
            INTRODUCTION.format(
                model=self.model,
                benchmark=VERSION,
                torch=torch.__version__,
                machine=platform.machine(),
                counts=counts,
                resamples=self.splits["test"].resamples,
                by_design=BY_DESIGN,
                warning=f" **A class has fewer than {ENOUGH} test questions.**" if few else "",
            ),
            "## Requirements\n",
            table(
                ("", "asked", "found", "met"),
                [(f"{r.number}. {r.title}", r.asked, r.found, "met" if r.met else "**NOT met**") for r in found],
            ),
            "## Accuracy by class\n\nWithout pruning:\n",
            self._unpruned(),
            "Pruned, test split:\n",
            self._pruned(),
            f"![Accuracy over rho by class]({plot})\n\nSelection split. Dashed: without pruning. Dotted: random.\n",
            "Chosen on the selection split:\n",
            self._chosen(),
            *map(_section, found),
        ]
        return "\n".join(parts)

    def _unpruned(self) -> str:
        columns: dict[str, dict[str, Paired]] = {}
        for split, of in self.splits.items():
            if split != "selection":
                columns |= {f"{split}: {name}": of.mean(way) for name, way in _controls().items()}
        return _accuracies(columns, self.splits["test"].classes)

    def _pruned(self) -> str:
        test = self.splits["test"]
        columns: dict[str, dict[str, Paired]] = {}
        for budget in BUDGETS:
            best = {label: at_rho(budget, rho) for label, rho in self.choices.best[budget].items()}
            columns |= {f"{budget}: best": test.mean(best), f"{budget}: random": test.mean(RANDOM[budget])}
        return _accuracies(columns, test.classes)

    def _chosen(self) -> str:
        ratios = [(budget, of[budget]) for budget in BUDGETS for of in (self.choices.best, self.choices.worst)]
        names = [f"{what} rho at {budget}" for budget in BUDGETS for what in ("best", "worst")]
        rows = [
            (label, *(f"{of[label]:g}" for _, of in ratios), self.choices.mixture[label])
            for label in self.splits["selection"].classes
        ]
        return table(("class", *names, "best mixture"), rows)

    def plot(self, path: Path) -> None:
        """Write a PNG: accuracy over rho by class on the selection split, at the budgets at which rho is judged."""
        from matplotlib.figure import Figure

        of, budgets = self.splits["selection"], self.choices.rho_budgets
        shown = [(budget, label) for budget in budgets for label in (*of.classes, MACRO)]
        lines = -(-len(shown) // COLUMNS)
        figure = Figure(figsize=(2.2 * COLUMNS, 2 * lines), layout="constrained")
        panels = figure.subplots(lines, COLUMNS, squeeze=False, sharex=True, sharey=True)
        curves = {budget: [of.mean(at_rho(budget, rho)) for rho in RHOS] for budget in budgets}
        flat = {(budget, style): of.mean(way) for budget in budgets for style, way in _flat(budget).items()}
        for axes, (budget, label) in zip(panels.flat, shown, strict=False):
            values = [curve[label] for curve in curves[budget]]
            axes.plot(RHOS, [100 * one.difference for one in values], "o-", ms=3)
            axes.fill_between(RHOS, [100 * one.low for one in values], [100 * one.high for one in values], alpha=0.2)
            for style in _flat(budget):
                axes.axhline(100 * flat[budget, style][label].difference, ls=style, color="black", lw=1)
            axes.set_title(f"{label}, {budget} tokens", fontsize=9)
        figure.supxlabel("rho", fontsize=9)
        figure.supylabel("accuracy, %", fontsize=9)
        figure.savefig(path, dpi=110)


def report_on(bench: Bench, pictures: Mapping[str, int], name: str, peers: Peers, resamples: int = RESAMPLES) -> Report:
    """Gather what was measured, and time the model.

    Args:
        bench: of the model.
        pictures: split -> how many.
        name: of the model, for the page.
        peers: what published methods answered.
        resamples: of the bootstrap.

    Raises:
        InputError: something was not measured to the end.
    """
    splits = {split: results_of(bench, split, count, resamples) for split, count in pictures.items()}
    choices = choices_of(bench, pictures["selection"])
    return Report(name, splits, choices, measure_speed(bench, "selection", pictures["selection"]), peers)


def results_of(bench: Bench, split: str, pictures: int, resamples: int = RESAMPLES) -> Results:
    """What is known of a split, the question-only baseline's hits among it.

    Raises:
        InputError: an unknown split, or a damaged journal.
    """
    samples = bench.samples(split, pictures)
    scores = ScoreJournal(bench.root / split, "read").read()
    kept = bench.root / split / f"blind-{pictures}.json"
    if not kept.is_file():
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(dict(zip((s.id for s in samples), blind_hits(samples), strict=True))))
        part.replace(kept)
    hits = json.loads(kept.read_text(encoding="utf-8"))
    return Results(
        samples, {s.id: {**scores.get(s.id, {}), BLIND: float(hits[s.id])} for s in samples}, resamples=resamples
    )


def _controls() -> dict[str, Way]:
    return {"blind": BLIND, "shuffled": SHUFFLED, "unpruned": UNPRUNED}


def _flat(budget: int) -> dict[str, Way]:
    """Line style -> what does not change with rho."""
    return {"--": UNPRUNED, ":": RANDOM[budget]}


def _accuracies(columns: Mapping[str, Mapping[str, Paired]], classes: Sequence[str]) -> str:
    rows = [
        (label, *(accuracy(of[label]) if label in of else "" for of in columns.values())) for label in (*classes, MACRO)
    ]
    return table(("class", *columns), rows)


def _section(requirement: Requirement) -> str:
    signs = {True: "yes", False: "no", None: ""}
    measured = table(("measured", "found", "as asked"), [(r.what, r.found, signs[r.good]) for r in requirement.rows])
    verdict = "Met" if requirement.met else "**NOT met**"
    return (
        f"## {requirement.number}. {requirement.title}\n\nAsked: {requirement.asked}.\n\n"
        f"{verdict}: {requirement.found}.\n\n{measured}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="the page; its plot gets the same name with .png")
    parser.add_argument(
        "--peers",
        type=int,
        default=PEER_PICTURES,
        help=f"test pictures for published methods (default {PEER_PICTURES})",
    )
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap (default {RESAMPLES})")
    given = parser.parse_args(arguments)
    if given.resamples < 1:
        raise InputError(f"cannot draw {given.resamples} resamples; give at least 1 with --resamples")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench.open(given.work, given.model)
    pictures = {split: getattr(given, split) for split in PICTURES}
    for split, count in pictures.items():
        measure(bench, split, count, plan_for(bench, split, given.selection))
    peers = ask_peers(bench, given.peers, resamples=given.resamples)
    report = report_on(bench, pictures, given.model.name, peers, given.resamples)
    picture = given.out.with_suffix(".png")
    try:
        report.plot(picture)
        given.out.write_text(report.markdown(picture.name), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {given.out} ({error}); give another place with --out") from error
    for found in report.requirements():
        print(f"{found.number}. {found.title}: {'met' if found.met else 'NOT met'} ({found.found})")


if __name__ == "__main__":
    sys.exit(ended(main))
