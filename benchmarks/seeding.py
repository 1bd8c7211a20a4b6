"""What k-means should start from: accuracy of the embedded model under each seeding, paired by question.

    python benchmarks/seeding.py [--pictures 14] [--budgets 64,192] [--work DIR] [--out docs/results/seeding.md]

Scores every question of some test pictures under own layer and hybrid mixture, rho 0.25 and 0.5, and each seeding;
those of a question share one forward. Differences from the paper's seeding are paired, with 95 % bootstrap intervals by
picture. About three minutes of one core; a killed run goes on with the budget where it stopped.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from steps import kept
from torch import Tensor

from clasp_calib import cache_features, load_samples
from clasp_calib.cache.encode import auto_layers
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.studies.intervals import Clusters, Interval, interval
from clasp_calib.common.progress import track
from clasp_calib.common.pruning_options import REDUNDANCY, SEEDINGS
from clasp_calib.common.run_directory import RunDirectory
from clasp_calib.common.samples import Sample
from clasp_calib.common.text_tables import markdown_table
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL, VERSION
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.selection import DualStage, Selection
from clasp_calib.search.space import SearchSpace, default_space
from tools.reference.by_design import BY_DESIGN

MIXTURES, RHOS = ("own", "hybrid"), (0.25, 0.5)
SPREAD = """## How far apart they are

Cosines at the first stage, {budget} tokens, {mixture} layer, rho {rho:g}, means over questions. *Seeds*: of a seed
with the nearest other one. *Medoids*: the same of medoids, after five rounds of k-means. *Farthest token*: of the token
that is farthest from all that are kept, with the nearest of those.

"""
NOTE = """# What k-means starts from

Written by `benchmarks/seeding.py`; do not edit. The embedded model, version {version}, all {questions} questions about
{pictures} test pictures, float32, the three stages inside the decoder. Accuracy in % over all questions; differences
are paired, with 95 % bootstrap intervals by picture. What is seeded how, and why, is in
[method.md](../design/method.md#what-k-means-starts-from).

{by_design}

"""


def candidates_of(layers: tuple[int, ...], vision_layers: int, own_layer: int) -> list[Candidate]:
    """Every mixture with every ratio and seeding; the last in their order."""
    known = default_space(layers, own_layer)
    space = SearchSpace(
        prototypes=tuple(p for p in known.prototypes if p.name in MIXTURES), rhos=RHOS, seedings=SEEDINGS
    )
    return space.candidates(vision_layers, own_layer)[1:]


def scored(
    evaluator: Evaluator, candidates: list[Candidate], pruning: Pruning, samples: list[Sample]
) -> dict[str, Any]:
    """[questions, candidates], of one budget."""
    asked = track(samples, "scoring questions", len(samples))
    return {"scores": [evaluator.scores(sample, candidates, pruning).score for sample in asked]}


class Watching:
    """The paper's selection from each seeding, a row each; notes how far apart the medoids of the first stage are."""

    needs_gram = True

    def __init__(self, notes: list[list[list[float]]]) -> None:
        self.notes, self.first = notes, True

    def __call__(
        self, relevance_BN: Tensor, gram_BNN: Tensor | None, counts_B: Tensor, rho_B: Tensor, valid_BN: Tensor
    ) -> Selection:
        """See `clasp_calib.runtime.selection.Selector`."""
        assert gram_BNN is not None
        given = relevance_BN, gram_BNN, counts_B, rho_B, valid_BN
        # Without a round of k-means each seed is the medoid of its own cluster.
        begun, found = (DualStage(rounds, SEEDINGS)(*given) for rounds in (0, 5))
        if self.first:
            rows = zip(gram_BNN, begun.keep_BN, found.keep_BN, found.pivots_BN, strict=True)
            self.notes.append([spread_of(*row) for row in rows])
        self.first = False
        return found


def spread_of(cosine_NN: Tensor, begun_N: Tensor, kept_N: Tensor, pivots_N: Tensor) -> list[float]:
    """Of one row: how near seeds are to each other, medoids to each other, and the farthest token to what is kept."""
    farthest = float(cosine_NN[kept_N].amax(0).min())
    return [nearest(cosine_NN, begun_N & ~pivots_N), nearest(cosine_NN, kept_N & ~pivots_N), farthest]


def nearest(cosine_NN: Tensor, chosen_N: Tensor) -> float:
    """Mean cosine of the chosen with the nearest other of them."""
    return float(cosine_NN[chosen_N][:, chosen_N].fill_diagonal_(-1).amax(1).mean())


def spread(
    evaluator: Evaluator, candidates: list[Candidate], pruning: Pruning, samples: list[Sample]
) -> dict[str, Any]:
    """[questions, seedings, 3]; the candidates differ in their seeding alone."""
    notes: list[list[list[float]]] = []
    watched = replace(pruning, selector_for=lambda _: Watching(notes))
    for sample in track(samples, "comparing seeds", len(samples)):
        evaluator.scores(sample, candidates, watched)
    return {"cosines": notes}


def told(found: Interval) -> str:
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def page(tables: dict[str, NDArray[np.float64]], candidates: list[Candidate], samples: list[Sample]) -> str:
    clusters = Clusters.of([str(sample.image) for sample in samples], 0)
    text = NOTE.format(version=VERSION, questions=len(samples), pictures=clusters.count, by_design=BY_DESIGN)
    others = [name for name in SEEDINGS if name != REDUNDANCY]
    header = ["mixture, rho", *SEEDINGS, *(f"{name} - {REDUNDANCY}" for name in others)]
    for budget, scores in tables.items():
        rows = []
        for start in range(0, len(candidates), len(SEEDINGS)):
            part = dict(zip(SEEDINGS, scores[:, start : start + len(SEEDINGS)].T, strict=True))
            gains = [interval(part[name] - part[REDUNDANCY], clusters, "gains") for name in others]
            means = [f"{100 * part[name].mean():.1f}" for name in SEEDINGS]
            one = candidates[start]
            rows.append([f"{one.prototype}, {one.rho:g}", *means, *map(told, gains)])
        text += f"## {budget} tokens\n\n{markdown_table(header, rows)}\n\n"
    return text.rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=14)
    parser.add_argument("--budgets", default="64,192")
    parser.add_argument("--work", type=Path, default=Path("build") / "seeding")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(str(MODEL))
    adapter = adapter_for(model)
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    candidates = candidates_of(layers, adapter.vision_layers, adapter.own_layer)
    work = arguments.work / f"{arguments.pictures}-pictures"
    table = load_samples(write_benchmark(work / "benchmark", {"test": arguments.pictures}))
    cache_features(model, processor, table, run=work)
    samples = list(table)
    features = CachedFeatures(FeatureStore.open(RunDirectory(work).cache), layers)
    evaluator = Evaluator(model, Prompter(processor, model), features)
    tables = {}
    for budget in arguments.budgets.split(","):
        make = partial(scored, evaluator, candidates, Pruning(schedule_for(model, budget)), samples)
        found = kept(work / f"{budget}.json", make)
        tables[budget] = np.array(found["scores"])
    text = page(tables, candidates, samples)
    budget, alike = arguments.budgets.split(",")[0], candidates[: len(SEEDINGS)]
    make = partial(spread, evaluator, alike, Pruning(schedule_for(model, budget)), samples)
    means = np.mean(kept(work / f"{budget}-spread.json", make)["cosines"], axis=0)
    rows = [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(SEEDINGS, means, strict=True)]
    text += "\n" + SPREAD.format(budget=budget, mixture=alike[0].prototype, rho=alike[0].rho)
    text += markdown_table(["seeding", "seeds", "medoids", "farthest token"], rows) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
