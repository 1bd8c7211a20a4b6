"""Does int8 change what the search ranks by? Kendall's tau between rankings of the candidates, on the embedded model.

    python benchmarks/int8_ranking.py [--pictures 8] [--budget 192] [--json FILE]

Caches the same pictures of the embedded benchmark in float16 and in int8, scores every candidate of the default space
on every question from both, and compares. The search ranks a class's candidates by their mean score; the mean negative
log-likelihood of the answers, which varies less, is ranked beside it. Tau is tau-b, which counts ties; it is also given
between the halves of the questions in float16 alone, which is how much the ranking depends on the draw of questions.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from clasp_calib.cache.encode import auto_layers, cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.maintenance import contents
from clasp_calib.calib.dataset import calibration_samples
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.feature_sources import open_source
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.cli import run
from clasp_calib.common.progress import track
from clasp_calib.common.pruning_options import PruningOptions
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import CLASSES
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.search.space import default_space
from tools.reference.idle_blocks import leave_out_idle_blocks

KINDS = ("float16", "int8")
STARTS = (2, 6, 15)


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Tau-b of two rankings; 1 where both rank nothing."""
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return 1.0
    return float(kendalltau(one, other).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--budget", default="192")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    setting = parser.parse_args()
    model, processor = load_model(str(MODEL))
    leave_out_idle_blocks(model)
    adapter = adapter_for(model)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        table = write_benchmark(root / "benchmark", {"calibration": setting.pictures})
        run(["label", str(table), "--run", str(root / "run")])
        samples = calibration_samples(load_samples(root / "run" / "labels.parquet"), CLASSES)
        layers = auto_layers(adapter.vision_layers, adapter.own_layer)
        space = default_space(layers, adapter.own_layer)
        candidates = space.candidates(adapter.vision_layers, adapter.own_layer)
        prompter = Prompter(processor, model)
        evaluators, used = {}, {}
        for kind in KINDS:
            cache_features(model, processor, samples, root / kind, FeatureOptions(layers=layers, precision=kind))
            used[kind] = contents(root / kind).bytes_used
            features = open_source(root / kind, model, processor).at(layers)
            evaluators[kind] = Evaluator(model, prompter, features)
        schedule = schedule_for(model, setting.budget, PruningOptions(starts=STARTS))
        found: dict[str, list[tuple[tuple[float, ...], tuple[float, ...]]]] = {kind: [] for kind in KINDS}
        for sample in track(samples, "scoring", len(samples)):
            for kind in KINDS:
                scores = evaluators[kind].scores(sample, candidates, Pruning(schedule))
                found[kind].append((scores.score, scores.nll or ()))
    # [kinds, samples, score or likelihood, candidates]
    all_KSVc = np.array([found[kind] for kind in KINDS])
    labels = np.array([sample.label for sample in samples])
    result = report(all_KSVc, labels, {kind: used[kind] for kind in KINDS}, len(candidates))
    if setting.json:
        setting.json.write_text(json.dumps(result, indent=1) + "\n")


def report(all_KSVc: np.ndarray, labels: np.ndarray, used: dict[str, int], candidates: int) -> dict[str, object]:
    """Print and give the figures."""
    print(f"{len(labels)} questions, {candidates} candidates; torch threads: {torch.get_num_threads()}")
    print(
        f"bytes: {used['float16']:,} in float16, {used['int8']:,} in int8: {used['float16'] / used['int8']:.3f} times"
    )
    differing = float((all_KSVc[0, :, 0] != all_KSVc[1, :, 0]).mean())
    apart = np.abs(all_KSVc[0, :, 1] - all_KSVc[1, :, 1])
    print(f"scores that differ: {differing:.2%}; likelihoods differ by {np.median(apart):.2g} nats (median)")
    print(f"\n{'class':12}{'questions':>10}{'tau score':>12}{'tau nll':>10}{'halves':>9}{'best kept':>11}")
    rows = {}
    for label in [*sorted(set(labels)), "all"]:
        chosen_KSVc = all_KSVc[:, labels == label] if label != "all" else all_KSVc
        means_KVc = chosen_KSVc.mean(1)
        several = chosen_KSVc.shape[1] > 1
        halves = [chosen_KSVc[0, part::2].mean(0) for part in (0, 1)] if several else [means_KVc[0]] * 2
        rows[label] = {
            "questions": chosen_KSVc.shape[1],
            "tau_score": tau(means_KVc[0, 0], means_KVc[1, 0]),
            "tau_nll": tau(means_KVc[0, 1], means_KVc[1, 1]),
            "tau_nll_halves": tau(halves[0][1], halves[1][1]) if several else float("nan"),
            "same_best_nll": bool(means_KVc[0, 1].argmin() == means_KVc[1, 1].argmin()),
        }
        row = rows[label]
        print(
            f"{label:12}{row['questions']:10}{row['tau_score']:12.3f}{row['tau_nll']:10.3f}"
            f"{row['tau_nll_halves']:9.3f}{'yes' if row['same_best_nll'] else 'no':>11}",
            flush=True,
        )
    return {"bytes": used, "differing_scores": differing, "median_nats": float(np.median(apart)), "classes": rows}


if __name__ == "__main__":
    main()
