"""Tokens dropped between decoder layers against tokens dropped before them, at equal mean tokens a layer.

    python benchmarks/profiles.py [--pictures 14] [--budgets 64,192] [--work DIR] [--out docs/results/profiles.md]

Scores every question of some test pictures in the layered profile and in the input profile under each relevance that
the tower gives, with own layer and hybrid mixture, rho 0.25, 0.5 and 1, and two seedings; those of a question share one
forward. Differences from the layered profile are paired, with 95 % bootstrap intervals by picture. About three minutes
of one core for a budget; a killed run goes on with the table where it stopped.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from seeding import MIXTURES, scored, told
from steps import kept

from clasp_calib import cache_features, load_samples
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.intervals import Clusters, interval
from clasp_calib.common.pruning_options import FARTHEST, INPUT, LAYERED, NONE, REDUNDANCY, PruningOptions
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.samples import Sample
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, VERSION
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.search.space import SearchSpace, default_space
from tools.reference.by_design import BY_DESIGN
from tools.reference.idle_blocks import leave_out_idle_blocks

RHOS, SEEDED = (0.25, 0.5, 1.0), (REDUNDANCY, FARTHEST)
NOTE = """# Where tokens are dropped

Written by `benchmarks/profiles.py`; do not edit. The embedded model, version {version}, all {questions} questions about
{pictures} test pictures, float32. *Layered*: three stages between decoder layers, rated by the instruction. The others:
once before the decoder, rated by the class token's attention or by the mean of all patches'. All work on as many tokens
a layer in the mean. Accuracy in % over all questions; differences are paired, with 95 % bootstrap intervals by picture.
What is done where is in [method.md](../design/method.md#the-input-profile).

{by_design}

"""


def candidates_of(layers: tuple[int, ...], vision_layers: int, own_layer: int) -> list[Candidate]:
    """Every mixture with every ratio and seeding; the last in their order."""
    known = default_space(layers, own_layer)
    prototypes = tuple(p for p in known.prototypes if p.name in MIXTURES)
    made = SearchSpace(prototypes=prototypes, rhos=RHOS, seedings=SEEDED).candidates(vision_layers, own_layer)
    return sorted(made, key=lambda one: (MIXTURES.index(one.prototype), one.rho))


def page(tables: dict[str, dict[str, NDArray[np.float64]]], candidates: list[Candidate], samples: list[Sample]) -> str:
    clusters = Clusters.of([str(sample.image) for sample in samples], 0)
    text = NOTE.format(version=VERSION, questions=len(samples), pictures=clusters.count, by_design=BY_DESIGN)
    for budget, scores in tables.items():
        others = [name for name in scores if name != LAYERED]
        rows = []
        for number, one in enumerate(candidates):
            means = [f"{100 * of[:, number].mean():.1f}" for of in scores.values()]
            gains = [
                interval(scores[name][:, number] - scores[LAYERED][:, number], clusters, "gains") for name in others
            ]
            rows.append([f"{one.prototype}, {one.rho:g}, {one.seeding}", *means, *map(told, gains)])
        header = ["mixture, rho, seeds", *scores, *(f"{name} - {LAYERED}" for name in others)]
        text += f"## {budget} tokens\n\n{markdown_table(header, rows)}\n\n"
    return text.rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=14)
    parser.add_argument("--budgets", default="64,192")
    parser.add_argument("--work", type=Path, default=Path("build") / "profiles")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(str(MODEL))
    leave_out_idle_blocks(model)
    adapter, work = adapter_for(model), arguments.work / f"{arguments.pictures}-pictures"
    table = load_samples(write_benchmark(work / "benchmark", {"test": arguments.pictures}))
    cache_features(model, processor, table, run=work)
    source, samples = open_source(RunDirectory(work).cache, model, processor), list(table)
    candidates = candidates_of(source.layers, adapter.vision_layers, adapter.own_layer)
    evaluator = Evaluator(model, Prompter(processor, model), source.at(source.layers))
    rated = [relevance for relevance in adapter.relevances if relevance != NONE]
    profiles = {LAYERED: PruningOptions(), **{name: PruningOptions(profile=INPUT, relevance=name) for name in rated}}
    tables: dict[str, dict[str, NDArray[np.float64]]] = {}
    for budget in arguments.budgets.split(","):
        tables[budget] = {}
        for name, options in profiles.items():
            pruning = Pruning(schedule_for(model, budget, options), options)
            found = kept(work / f"{budget}-{name}.json", partial(scored, evaluator, candidates, pruning, samples))
            tables[budget][name] = np.array(found["scores"])
    text = page(tables, candidates, samples)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
