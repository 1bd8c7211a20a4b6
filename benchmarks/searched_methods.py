"""Measure what it is worth that a search chooses the method too: docs/results/selectors.md.

Calibrates the embedded model twice on the same questions, with CLASP's own selection alone and with other selectors
among the candidates, and scores both on pictures that nothing else used, beside each selector with the model's own
layer and with the first calibration's mixtures. Killed, it goes on where it stopped. `make bench PART=selectors`.
"""

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from steps import kept

import clasp_calib as cc
from clasp_calib.calib.dataset import by_class
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.comparison import MACRO, Comparison, Setting, compare
from clasp_calib.calib.studies.evaluation import calibrated_setting
from clasp_calib.calib.studies.scorer import Scorer
from clasp_calib.common.hashing import sha256_json
from clasp_calib.common.places import Places
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.selector_choice import SelectorChoice
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.crew.local_workers import InProcess
from clasp_calib.reference.benchmark import VERSION as BENCHMARK, write_benchmark
from clasp_calib.reference.model import MODEL, VERSION
from clasp_calib.report.tables import points, score
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.schedule import parse_budget
from clasp_calib.search.solved_selectors import solved_choice
from clasp_calib.search.space import SearchSpace, SpaceSelector, default_space
from tools.reference.by_design import BY_DESIGN
from tools.reference.idle_blocks import leave_out_idle_blocks

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "docs" / "results"
POOL, TEST, BUDGETS = 60, 90, ("192", "128", "64")
SELECTORS = ("fastv", "sparsevlm", "divprune", "vispruner", "scope")
CLASP, ALL = "calibrated, CLASP alone", "calibrated, all selectors"
FIRST = 7_000
"""Number of the first picture of each split: no other measurement uses these."""
NOTE = """# A search that chooses the method too

Written by `benchmarks/searched_methods.py`; do not edit.

Measured on version {model} of the embedded model and version {benchmark} of its benchmark, with clasp-calib {version}
and torch {torch}, in float32 ({machine}). Calibrated on {pool} pictures ({asked} questions) and scored on {tested}
questions about {test} others, which no other measurement used. Classes are those of the keyword labels.

{by_design}

- *{clasp}*: the default space, in which CLASP's own selection is the only one.
- *{all}*: the same space with {selectors} among the candidates, at the same tokens a layer. It has more candidates.
- *fastv* and so on: the method as its authors released it, with the model's own layer.
- *fastv+mixture* and so on: the same with the mixtures of *{clasp}*.

Scores are means over nine classes in percent, with 95 % bootstrap intervals by picture. Differences are paired.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "build" / "selectors")
    parser.add_argument(
        "--pages", type=Path, help="directory of the page; docs/results, of a smaller run that of --run"
    )
    parser.add_argument("--pool", type=int, default=POOL, help="pictures to calibrate on")
    parser.add_argument("--test", type=int, default=TEST, help="pictures to score on")
    parser.add_argument("--scored", default=",".join(BUDGETS), help="budgets of the page; all are searched")
    arguments = parser.parse_args()
    run, scored_at = arguments.run, tuple(arguments.scored.split(","))
    pages = arguments.pages or place_of_page(run, arguments.pool, arguments.test, scored_at)
    model, processor, samples, artifacts = calibrated(run, arguments.pool, arguments.test)
    source = open_source(RunDirectory(run).cache, model, processor)
    tested = by_class([s for s in samples if s.split == "test"], artifacts[CLASP].classes, None, 0)
    prompter = Prompter(processor, model, artifacts[CLASP].manifest.prompt)
    evaluator = Evaluator(model, prompter, source.at(source.layers))

    def scored(budget: str) -> dict[str, Any]:
        found = compare(Scorer(InProcess(evaluator)), settings_of(model, artifacts, budget), tested, 0)
        return {**vars(found), "scores": found.scores.tolist()}

    of = identity(artifacts, [sample.id for each in tested.values() for sample in each])
    count = sum(map(len, tested.values()))
    text = NOTE.format(
        model=VERSION,
        benchmark=BENCHMARK,
        version=cc.__version__,
        torch=torch.__version__,
        machine=platform.machine(),
        pool=arguments.pool,
        asked=sum(sample.split == "calibration" for sample in samples),
        tested=count,
        test=arguments.test,
        by_design=BY_DESIGN,
        clasp=CLASP,
        all=ALL,
        selectors=", ".join(SELECTORS),
    )
    for budget in scored_at:
        made = kept(run / f"scores-{budget}-{of}.json", partial(scored, budget))
        compared = Comparison(**{**made, "scores": np.array(made["scores"])})
        text += f"## {budget} tokens\n\n" + told(compared, artifacts[ALL], budget)
    (pages / "selectors.md").write_text(text.rstrip() + "\n", encoding="utf-8")


def place_of_page(run: Path, pool: int, test: int, scored_at: Sequence[str]) -> Path:
    """Where the page goes that nobody sent elsewhere: the published one is of the whole measurement alone."""
    return PUBLISHED if (pool, test, tuple(scored_at)) == (POOL, TEST, BUDGETS) else run


def identity(artifacts: Mapping[str, cc.Artifact], tested: Sequence[str]) -> str:
    """Of what the scores of all settings are that are kept: twelve hex digits."""
    ids = {name: artifact.manifest.id for name, artifact in artifacts.items()}
    return sha256_json([ids, list(tested), VERSION, BENCHMARK, cc.__version__])[:12]


def calibrated(run: Path, pool: int, test: int) -> tuple[Any, Any, list[cc.Sample], dict[str, cc.Artifact]]:
    """The embedded model without its idle blocks, its processor, labelled samples and both calibrations.

    Args:
        run: directory that they are kept in.
        pool: pictures to calibrate on.
        test: pictures of the test split.
    """
    table = write_benchmark(run / "benchmark", {"calibration": pool, "test": test}, first=FIRST)
    model, processor = load_model(str(MODEL))
    leave_out_idle_blocks(model)
    samples = cc.label(cc.load_samples(table), run=run)
    cc.cache_features(model, processor, samples, run=run)
    source = open_source(RunDirectory(run).cache, model, processor)
    default = default_space(source.layers, adapter_for(model).own_layer)
    wider = [SpaceSelector(name="clasp"), *(SpaceSelector(name=name) for name in SELECTORS)]
    spaces = {CLASP: default, ALL: SearchSpace(**{**dict(default), "selectors": wider})}
    artifacts = {}
    for number, (name, space) in enumerate(spaces.items()):
        places = Places.of(run / f"search-{number}", features=RunDirectory(run).cache)
        options = cc.CalibrationOptions(space=space)
        artifacts[name] = cc.calibrate(model, processor, samples, BUDGETS, run=places, options=options)
    return model, processor, list(samples), artifacts


def settings_of(model: Any, artifacts: Mapping[str, cc.Artifact], budget: str) -> list[Setting]:
    """No pruning, the default, both calibrations, and each selector without and with the first one's mixtures."""
    ours = [replace(calibrated_setting(model, of, budget), name=name) for name, of in artifacts.items()]
    clasp, adapter = ours[0], adapter_for(model)
    own = Candidate("own", tuple(float(i == adapter.own_layer) for i in range(adapter.vision_layers + 1)), 1.0)
    plain = dict.fromkeys(clasp.candidates, own)
    made = [Setting("unpruned", Pruning(None), plain), replace(clasp, name="default", candidates=plain), *ours]
    for name in SELECTORS:
        choice = solved_choice(SelectorChoice(name), model, parse_budget(budget), filmed=False)
        for suffix, of in (("", plain), ("+mixture", clasp.candidates)):
            candidates = {label: Candidate(name, one.alpha, 1.0, selector=choice) for label, one in of.items()}
            made.append(replace(clasp, name=name + suffix, candidates=candidates))
    return made


def told(compared: Comparison, artifact: cc.Artifact, budget: str) -> str:
    """Scores of a budget, by class too, and what was chosen."""
    table = compared.table()
    rows: list[Sequence[str]] = []
    for name in sorted(compared.settings, key=lambda name: -table[name][MACRO].mean):
        less = "" if name == ALL else points(compared.difference(name, ALL)[MACRO], 1)
        means = [f"{100 * table[name][label].mean:.0f}" for label in compared.classes]
        rows.append([name, score(table[name][MACRO], 1), less, *means])
    header = ["setting", "macro", f"minus *{ALL}*", *compared.classes]
    chosen = [
        f"{label}: {artifact.entry(budget).choices[label].prototype} with {selector.name if selector else 'clasp'}"
        for label in compared.classes
        for selector in [artifact.selector(budget, label)]
    ]
    return f"{markdown_table(header, rows)}\n\nChosen by *{ALL}*: {'; '.join(chosen)}.\n\n"


if __name__ == "__main__":
    main()
