"""What k-means should start from: accuracy of the embedded model under each seeding, paired by question.

    python benchmarks/seeding.py [--pictures 24] [--budgets 64,192] [--out docs/results/seeding.md]

Scores every question of some test pictures under own layer and hybrid mixture, rho 0.25 and 0.5, and each seeding;
those of a question share one forward. Differences from the paper's seeding are paired, with 95 % bootstrap intervals by
picture. About eight minutes of one core with 24 pictures.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

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
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.search.space import SearchSpace, default_space

MIXTURES, RHOS = ("own", "hybrid"), (0.25, 0.5)
NOTE = """# What k-means starts from

Written by `benchmarks/seeding.py`; do not edit. The embedded model, all {questions} questions about {pictures} test
pictures, float32, the three stages inside the decoder. Accuracy in % over all questions; differences are paired, with
95 % bootstrap intervals by picture. The pictures of this benchmark are drawn, and most tokens of one show its
background.

"""


def candidates_of(layers: tuple[int, ...], vision_layers: int, own_layer: int) -> list[Candidate]:
    """Every mixture with every ratio and seeding; the last in their order."""
    known = default_space(layers, own_layer)
    space = SearchSpace(
        prototypes=tuple(p for p in known.prototypes if p.name in MIXTURES), rhos=RHOS, seedings=SEEDINGS
    )
    return space.candidates(vision_layers, own_layer)[1:]


def told(found: Interval) -> str:
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def page(tables: dict[str, NDArray[np.float64]], candidates: list[Candidate], samples: list[Sample]) -> str:
    clusters = Clusters.of([str(sample.image) for sample in samples], 0)
    text = NOTE.format(questions=len(samples), pictures=clusters.count)
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
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--budgets", default="64,192")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(str(MODEL))
    adapter = adapter_for(model)
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    candidates = candidates_of(layers, adapter.vision_layers, adapter.own_layer)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        table = load_samples(write_benchmark(work / "benchmark", {"test": arguments.pictures}))
        cache_features(model, processor, table, run=work)
        samples = list(table)
        features = CachedFeatures(FeatureStore.open(RunDirectory(work).cache), layers)
        evaluator = Evaluator(model, Prompter(processor, model), features)
        tables = {}
        for budget in arguments.budgets.split(","):
            pruning = Pruning(schedule_for(model, budget))
            asked = track(samples, f"{budget} tokens", len(samples))
            tables[budget] = np.array([evaluator.scores(sample, candidates, pruning).score for sample in asked])
    text = page(tables, candidates, samples)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
