"""Measure the committed comparison: the tables and the picture of docs/results/comparison.md.

Takes the calibration of `searched_methods.py`, and lets all methods answer questions about pictures that nothing else
used, budget by budget, as released and with the calibration's mixtures. Killed, it goes on where it stopped; the page
holds the budgets that are finished. All answers are kept in benchmarks/data/comparison, so that it goes on elsewhere
too.
"""

import argparse
import lzma
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from searched_methods import ALL, BUDGETS, CLASP, SELECTORS, calibrated

import clasp_calib as cc
from clasp_calib.calib.dataset import by_class
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.contest import Entrant
from clasp_calib.calib.studies.costs import PrefillCost, prefill_costs
from clasp_calib.common.places import Places
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.samples import CLASSES
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.reference.benchmark import VERSION as BENCHMARK, write_benchmark
from clasp_calib.reference.model import MODEL, VERSION
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.search.space import SearchSpace, SpaceSelector, default_space
from tools.default_configurations import no_default_configurations
from tools.reference.by_design import BY_DESIGN
from tools.reference.remembered_tower import remember_tower

ROOT = Path(__file__).parent.parent
FIRST = 9_000
"""Number of the first picture of the test split: no other measurement uses these."""
BATCHES = (1, 8)
INPUT = "calibrated, input profile"
AT_INPUT = ("divprune", "vispruner", "scope")
"""Selectors that choose before the decoder."""
NOTE = """Embedded model v{model}, benchmark v{benchmark}, clasp-calib {version}, torch {torch}, float32, 1 thread
({machine}). Three calibrations on {pool} pictures ({asked} questions): *calibrated* has {selectors} among its
selectors, *{clasp}* has not, and *{input}* chooses once, before the decoder. Compared on {questions} questions about
{test} others, {classes}. Tower and decoder leave out what they would compute twice or for
nothing, which changes no answer; times are measured on the whole model."""
TIMES = """### Times

Milliseconds from the pixels to the first token: median of {timed} prefills, all methods in turn, in batches of
{batches} pictures. Compare them within this table only. Methods inside the decoder, except FastV and
CLASP's own selection, choose row by row."""
MEASURED = re.compile(r"(<!-- measured:begin -->\n).*(<!-- measured:end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "comparison")
    parser.add_argument("--calibrated", type=Path, help="run of searched_methods.py", default=ROOT / "build/selectors")
    parser.add_argument("--pages", type=Path, required=True, help="directory of the page")
    parser.add_argument("--ledger", type=Path, required=True, help="directory of packed answers")
    parser.add_argument("--pool", type=int, default=60, help="pictures to calibrate on")
    parser.add_argument("--selected-on", type=int, default=90, help="test pictures of searched_methods.py")
    parser.add_argument("--test", type=int, default=80, help="pictures to compare on")
    parser.add_argument("--more", type=int, default=40, help="others, for classes that these ask too little about")
    parser.add_argument("--per-class", type=int, default=60, help="questions a class")
    parser.add_argument("--solve-on", type=int, default=24, help="calibration questions a class to solve knobs on")
    parser.add_argument("--budgets", default="192,64,128", help="in the order in which they are measured")
    parser.add_argument("--timed", type=int, default=5, help="prefills to time for each method; 0 times none")
    arguments = parser.parse_args()
    model, processor, samples, artifacts = calibrated(arguments.calibrated, arguments.pool, arguments.selected_on)
    beside = {CLASP: artifacts[CLASP], INPUT: before_the_decoder(model, processor, samples, arguments.calibrated)}
    remember_tower(model)
    asked = [sample for sample in samples if sample.split == "calibration"]
    tested = questions(arguments)
    options = cc.ComparisonOptions(solve_on=arguments.solve_on, timed=0)
    budgets = arguments.budgets.split(",")
    unpack(arguments.ledger, arguments.run / "comparison")
    for last in range(1, len(budgets) + 1):
        at = budgets[:last]
        told = {"budgets": at, "run": arguments.run, "options": options, "beside": beside}
        try:
            with no_default_configurations():
                report = cc.compare(model, processor, artifacts[ALL], [*asked, *tested], **told)
        finally:
            pack(arguments.run / "comparison", arguments.ledger)
        counts = report.contest.comparison(at[0]).counts
        note = NOTE.format(
            model=VERSION,
            benchmark=BENCHMARK,
            version=cc.__version__,
            torch=torch.__version__,
            machine=platform.machine(),
            pool=arguments.pool,
            asked=len(asked),
            selectors=", ".join(SELECTORS),
            clasp=CLASP,
            input=INPUT,
            questions=len(report.contest.samples),
            test=len({sample.cluster for sample in report.contest.samples}),
            classes=f"{min(counts)} to {max(counts)} a class" if len(set(counts)) > 1 else f"{counts[0]} a class",
        )
        parts = [note, BY_DESIGN, "![Score against cost](comparison.png)", report.to_markdown()]
        write_page(parts, arguments.pages)
        report.plot(arguments.pages / "comparison.png")
    if arguments.timed:
        plain, processor = load_model(str(MODEL))
        prompter = Prompter(processor, plain, artifacts[ALL].manifest.prompt)
        entrants = [entrant for entrant in report.contest.entrants if not entrant.mixed]
        samples = report.contest.samples[: arguments.timed]
        costs = [prefill_costs(plain, processor, prompter, entrants, samples, rows) for rows in BATCHES]
        told = TIMES.format(timed=arguments.timed, batches=" and ".join(map(str, BATCHES)))
        write_page([*parts, told, times(entrants, costs)], arguments.pages)


def before_the_decoder(model: Any, processor: Any, samples: Sequence[cc.Sample], run: Path) -> cc.Artifact:
    """A calibration of the same questions in which tokens are chosen once, before the decoder."""
    source = open_source(RunDirectory(run).cache, model, processor)
    default = default_space(source.layers, adapter_for(model).own_layer)
    selectors = [SpaceSelector(name=name) for name in ("clasp", *AT_INPUT)]
    options = cc.CalibrationOptions(
        space=SearchSpace(**{**dict(default), "selectors": selectors}), pruning=cc.PruningOptions(profile="input")
    )
    places = Places.of(run / "search-input", features=RunDirectory(run).cache)
    return cc.calibrate(model, processor, samples, BUDGETS, run=places, options=options)


def questions(arguments: argparse.Namespace) -> list[cc.Sample]:
    """As many of each class; the later pictures are asked only about what the first have too few of."""
    parts = {"benchmark": (FIRST, arguments.test), "more": (FIRST + arguments.test, arguments.more)}
    chosen: dict[str, list[cc.Sample]] = {label: [] for label in CLASSES}
    for name, (first, pictures) in parts.items():
        place = arguments.run / name
        table = write_benchmark(place, {"test": pictures}, first=first)
        labelled = cc.label(cc.load_samples(table), run=place / "run")
        for label, of in by_class(labelled, CLASSES, arguments.per_class, 0).items():
            chosen[label] += of[: arguments.per_class - len(chosen[label])]
    return [sample for of in chosen.values() for sample in of]


def times(entrants: Sequence[Entrant], costs: Sequence[Sequence[PrefillCost]]) -> str:
    """A row a method, and two columns a budget: a picture alone, and one of a batch."""
    found = {
        (entrant.method, f"{entrant.budget}, batch {rows}"): f"{1000 * cost.seconds:.0f}"
        for rows, of in zip(BATCHES, costs, strict=True)
        for entrant, cost in zip(entrants, of, strict=True)
    }
    budgets, names = (list(dict.fromkeys(of)) for of in zip(*((e.budget, e.method) for e in entrants), strict=True))
    columns = [f"{budget}, batch {rows}" for budget in budgets for rows in BATCHES]
    return markdown_table(["method", *columns], [[n, *(found.get((n, c), "") for c in columns)] for n in names])


def pack(journals: Path, ledger: Path) -> None:
    """Keep journals of answers and knobs in a twelfth of their size."""
    ledger.mkdir(parents=True, exist_ok=True)
    for journal in journals.glob("*.jsonl"):
        packed = ledger / f"{journal.name}.xz"
        if not packed.exists() or len(lzma.decompress(packed.read_bytes())) < journal.stat().st_size:
            _replace(packed, lzma.compress(journal.read_bytes(), preset=9))


def unpack(ledger: Path, journals: Path) -> None:
    """Put journals back that are not there."""
    journals.mkdir(parents=True, exist_ok=True)
    for packed in ledger.glob("*.jsonl.xz"):
        if not (journal := journals / packed.stem).exists():
            _replace(journal, lzma.decompress(packed.read_bytes()))


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def write_page(parts: Sequence[str], pages: Path) -> None:
    """Put what was measured into the page, between its marks."""
    text = (ROOT / "docs" / "results" / "comparison.md").read_text(encoding="utf-8")
    measured = "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
    page = MEASURED.sub(lambda found: found[1] + measured + found[2], text)
    (pages / "comparison.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
