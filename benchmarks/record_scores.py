"""Record what every candidate scores on every sample: benchmarks/data/recorded_scores.npz, to replay searches on.

Draws pictures of the embedded benchmark, caches the embedded model's vision layers, and measures the default space's
candidates on the questions of each class, as the benchmark states it, at each budget:

    python benchmarks/record_scores.py [--budgets 192,128,64] [--samples 256] [--workers 2] [--work DIR]

An hour of one core: blocks of the model that add nothing are left out, which changes no bit of a score. A killed run
goes on where it stopped, a part of 64 questions at a time.

Stored are, for each budget and class, ``<budget>/<class>/score`` (uint8) and ``nll`` (float16, nats), [samples,
candidates]; of the first questions also ``kl`` (float16, nats) [samples, candidates], once for each class
``unpruned/<class>/score`` and ``said`` [samples, mixtures]: whether the unpruned model is right with each mixture, and
what it answers, numbers that stand for texts. ``picture/<class>`` [samples] tells pictures apart. Once there are
``alpha`` [candidates, layers], ``rho``, ``name`` and ``weights``, the digest of the model that was measured.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUDGETS = "192,128,64"
PICTURES, SAMPLES, PART = 264, 256, 64
DIVERGENCES, OF_BUDGETS = 32, ("192", "64")
"""Questions on which the likeness to the unpruned model is measured, and at which budgets."""
OUT = Path(__file__).parent / "data" / "recorded_scores.npz"
Arrays = dict[str, NDArray[Any]]


def prepared(work: Path, pictures: int) -> dict[str, list[Any]]:
    """Samples by class, in an order that was shuffled once; their features are cached."""
    from clasp_calib import cache_features, load_samples
    from clasp_calib.calib.dataset import by_class
    from clasp_calib.reference.benchmark import write_benchmark
    from clasp_calib.reference.model import MODEL
    from clasp_calib.router_labeling.taxonomy import load_taxonomy
    from clasp_calib.runtime.loading import load_model

    table = load_samples(write_benchmark(work / "benchmark", {"calibration": pictures}))
    cache_features(*load_model(str(MODEL)), table, run=work)
    # The benchmark's ids end in the class that a question was made for.
    stated = [replace(sample, label=sample.id.rsplit("-", 1)[1]) for sample in table]
    return {label: list(of) for label, of in by_class(stated, load_taxonomy(None).classes, len(stated), 0).items()}


@lru_cache(maxsize=1)
def opened(work: Path) -> tuple[Any, ...]:
    """Of a worker process: model, prompter, features, and candidates."""
    import torch

    from clasp_calib.cache.encode import auto_layers
    from clasp_calib.cache.store import FeatureStore
    from clasp_calib.calib.scoring.features import CachedFeatures
    from clasp_calib.calib.scoring.prompting import Prompter
    from clasp_calib.common.run_directory import RunDirectory
    from clasp_calib.reference.model import MODEL
    from clasp_calib.runtime.adapters import adapter_for
    from clasp_calib.runtime.loading import load_model
    from clasp_calib.search.space import default_space
    from tools.reference.idle_blocks import leave_out_idle_blocks

    torch.set_num_threads(1)
    model, processor = load_model(str(MODEL))
    leave_out_idle_blocks(model)
    adapter = adapter_for(model)
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    candidates = default_space(layers, adapter.own_layer).candidates(adapter.vision_layers, adapter.own_layer)
    features = CachedFeatures(FeatureStore.open(RunDirectory(work).cache), layers)
    return model, Prompter(processor, model), features, candidates


def scored(work: Path, budget: str, samples: Sequence[Any]) -> Arrays:
    """Score and likelihood of all candidates."""
    from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
    from clasp_calib.runtime.budgeting import schedule_for

    model, prompter, features, candidates = opened(work)
    evaluator, pruning = Evaluator(model, prompter, features), Pruning(schedule_for(model, budget))
    found = [evaluator.scores(sample, candidates, pruning) for sample in samples]
    return {"score": np.array([f.score for f in found], np.uint8), "nll": np.array([f.nll for f in found], np.float16)}


def likeness(work: Path, budget: str, samples: Sequence[Any]) -> Arrays:
    """Divergence of all candidates from the unpruned model."""
    from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
    from clasp_calib.runtime.budgeting import schedule_for

    model, prompter, features, candidates = opened(work)
    evaluator, pruning = Evaluator(model, prompter, features, objective="kl"), Pruning(schedule_for(model, budget))
    kl = [evaluator.scores(sample, candidates, pruning).score for sample in samples]
    return {"kl": -np.array(kl, np.float16)}


def unpruned(work: Path, budget: str, samples: Sequence[Any]) -> Arrays:
    """What the unpruned model answers with each mixture."""
    from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
    from clasp_calib.calib.scoring.metrics import EXACT, metric

    model, prompter, features, candidates = opened(work)
    evaluator, mixtures = Evaluator(model, prompter, features), list({c.alpha: c for c in candidates}.values())
    said = [evaluator.answers(sample, mixtures, Pruning(None)) for sample in samples]
    texts = {text: number for number, text in enumerate(sorted({text for row in said for text in row}))}
    right = [[metric(s.metric or EXACT)(t, s.answers) for t in row] for s, row in zip(samples, said, strict=True)]
    return {"score": np.array(right, np.uint8), "said": np.array([[texts[t] for t in row] for row in said], np.uint16)}


WAYS = {"score": scored, "kl": likeness, "unpruned": unpruned}


def measured(work: Path, way: str, budget: str, label: str, number: int, samples: Sequence[Any]) -> Path:
    """One part of a class at one budget; measured now unless it was before."""
    path = work / "recorded" / f"{way}-{budget}-{label}-{number}.npz"
    if not path.exists():
        found = WAYS[way](work, budget, samples)
        path.parent.mkdir(exist_ok=True)
        half = path.with_suffix(".half.npz")
        np.savez_compressed(half, **found)
        half.rename(path)
    return path


def joined(parts: Mapping[tuple[str, str, str, int], Path]) -> Arrays:
    """The arrays of all parts, those of a class one behind the other."""
    found: dict[str, list[NDArray[Any]]] = {}
    for (way, budget, label, _), path in parts.items():
        with np.load(path) as part:
            for name in part.files:
                found.setdefault(f"{budget if way != 'unpruned' else way}/{label}/{name}", []).append(part[name])
    return {name: np.concatenate(of) for name, of in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", default=BUDGETS)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="to draw")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of a class, at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build") / "record-scores")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    work, budgets = arguments.work, arguments.budgets.split(",")
    by_class = prepared(work, arguments.pictures)
    jobs: dict[tuple[str, str, str, int], Sequence[Any]] = {}
    for start in range(0, arguments.samples, PART):
        for budget in budgets:
            for label, samples in by_class.items():
                if part := samples[: arguments.samples][start : start + PART]:
                    jobs["score", budget, label, start // PART] = part
    few = min(DIVERGENCES, arguments.samples)
    for way, budget in [("unpruned", "none"), *(("kl", budget) for budget in budgets if budget in OF_BUDGETS)]:
        for label, samples in by_class.items():
            jobs[way, budget, label, 0] = samples[:few]
    with ProcessPoolExecutor(arguments.workers) as pool:
        running = {job: pool.submit(measured, work, *job, samples) for job, samples in jobs.items()}
        done = {}
        for job, result in running.items():
            done[job] = result.result()
            print(*job, flush=True)
    stored = joined(done)
    from clasp_calib.artifacts.checkpoint_digest import weights_digest
    from clasp_calib.reference.model import MODEL
    from clasp_calib.runtime.loading import load_model

    _, _, features, candidates = opened(work)
    for label, samples in by_class.items():
        keys = [features.key(sample) for sample in samples[: arguments.samples]]
        stored[f"picture/{label}"] = np.array([int(key[:12], 16) for key in keys], np.int64)
    stored["alpha"] = np.array([candidate.alpha for candidate in candidates], np.float32)
    stored["rho"] = np.array([candidate.rho for candidate in candidates], np.float32)
    stored["name"] = np.array([candidate.name for candidate in candidates])
    stored["weights"] = np.array(weights_digest(load_model(str(MODEL))[0]))
    np.savez_compressed(arguments.out, **stored)


if __name__ == "__main__":
    main()
