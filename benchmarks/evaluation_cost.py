"""What one score of one candidate on one sample costs, beside the naive way, and what each saving is worth.

    python benchmarks/evaluation_cost.py [--budget 64] [--samples 12]

On the embedded model and benchmark, with the default search space. The naive way runs the vision tower again, one
candidate at a time, and generates the answer (from a picture that is decoded and resized already). Every saving is
taken away alone. All ways take turns on every sample, so that a drift of the machine's speed hits all alike; ratios
are medians over samples. Beside them stands how many scores differ from those of all savings together: cached layers
are rounded to float16, the tower's own are not, and sums in another order round differently.

Physical limit: what the decoder must at least compute, in FLOPs. Layers before the first stage see all tokens of every
mixture, later layers those that are kept, for every candidate; the text before the picture and all that does not
depend on the candidate is free. This is divided by the speed of a large float32 product on the same machine.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from clasp_calib.cache.encode import auto_layers, cache_features
from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.store import FeatureStore
from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Evaluator, Pruning
from clasp_calib.calib.scoring.features import CachedFeatures
from clasp_calib.calib.scoring.metrics import EXACT, MAX_NEW_TOKENS, metric
from clasp_calib.calib.scoring.prompted import Picture, Prefixes
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.sample_sources import load_samples
from clasp_calib.common.samples import Sample
from clasp_calib.reference.benchmark import write_benchmark
from clasp_calib.reference.model import MODEL
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.loading import load_model
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.runtime.pruner import prune
from clasp_calib.runtime.scoring import take
from clasp_calib.runtime.selection import gram_matrix
from clasp_calib.runtime.stages import Prefill
from clasp_calib.search.space import default_space

Way = Callable[[Sample], list[float]]
Spent = tuple[float, float]
"""Seconds on the wall's clock, and of the processor."""
ALL = "all savings"
NOTE = """Embedded model, {samples} samples, {candidates} candidates ({mixtures} mixtures), torch {torch}, float32 on
{threads} CPU thread(s) ({machine}). Milliseconds are processor time for one candidate on one sample. "Times" is the
median over samples of a way's time divided by that of all savings together.
"""


class TowerAgain:
    """Features whose tower runs anew for each of so many candidates."""

    def __init__(self, model: Any, processor: Any, cached: CachedFeatures, times: int) -> None:
        self.layers, self.origin, self._model, self._times = cached.layers, cached.origin, model, times
        self._pixels = {}
        self._processor = processor

    def fused(self, sample: Sample, alpha_Ml: Tensor) -> Tensor:
        if sample.image not in self._pixels:
            self._pixels[sample.image] = pixels(self._processor, sample)["pixel_values"]
        for _ in range(self._times):
            states_LTC = adapter_for(self._model).capture(self._model, self._pixels[sample.image])[0]
        return torch.einsum("ml,ltc->mtc", alpha_Ml, states_LTC[list(self.layers)])


class NoPrefix(Prefixes):
    """Text before the picture is gone through again by every mixture of every sample."""

    def cache(self, prompt: Sequence[int], picture: Picture) -> Any:
        return super().cache([next(iter(self._visual)), *prompt], picture)[0], 0


class NoFan(Evaluator):
    """Every candidate is a row of its own from the first layer on."""

    def _project(self, sample: Sample, candidates: Sequence[Candidate]) -> tuple[Picture, list[int]]:
        picture, fan = super()._project(sample, candidates)
        return replace(picture, visual=[picture.visual[row] for row in fan]), list(range(len(fan)))


@contextmanager
def gram_anew() -> Iterator[None]:
    """Cosines are computed at every stage for every candidate, from the same projected tokens."""
    begin, own = Prefill.__init__, Prefill._gram

    def init(self: Any, plan: Any, embeddings_BSD: Tensor, visual_BS: Tensor, *rest: Any) -> None:
        begin(self, plan, embeddings_BSD, visual_BS, *rest)
        self.projected = embeddings_BSD[visual_BS].view(len(visual_BS), -1, embeddings_BSD.shape[-1])

    def gram(self: Any, hidden_BSD: Tensor, position_BN: Tensor) -> Tensor | None:
        if self.gram_MNN is None:
            return own(self, hidden_BSD, position_BN)
        return gram_matrix(take(self.projected[self.source_B], self.column_BN))

    with patch.object(Prefill, "__init__", init), patch.object(Prefill, "_gram", gram):
        yield


def pixels(processor: Any, sample: Sample) -> Any:
    return processor(images=load_picture(sample.picture), text=processor.image_token, return_tensors="pt")


def naive_way(model: Any, processor: Any, prompter: Prompter, candidates: Sequence[Candidate], pruning: Pruning) -> Way:
    """Vision tower, prefill and decoding for every candidate alone; the picture is decoded once, off the clock."""
    prepared: dict[str, Any] = {}

    def way(sample: Sample) -> list[float]:
        if sample.id not in prepared:
            text = prompter.text(sample.question)
            prepared[sample.id] = processor(images=load_picture(sample.picture), text=text, return_tensors="pt")
            return []
        inputs, scores = prepared[sample.id], []
        for candidate in candidates:
            alpha_1L = torch.tensor([candidate.alpha])
            with prune(model, schedule=pruning.schedule, rho=candidate.rho, alpha_BL=alpha_1L):
                output = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            (answer,) = prompter.decode(output[:, inputs["input_ids"].shape[1] :])
            scores.append(metric(EXACT)(answer, sample.answers))
        return scores

    return way


def ways(model: Any, processor: Any, store: FeatureStore, layers: tuple[int, ...], pruning: Pruning) -> dict[str, Way]:
    """The naive way, all savings, and all but one."""
    candidates = default_space(layers, adapter_for(model).own_layer).candidates(
        adapter_for(model).vision_layers, adapter_for(model).own_layer
    )
    prompter, features = Prompter(processor, model), CachedFeatures(store, layers)
    evaluator = Evaluator(model, prompter, features)
    again = Evaluator(model, prompter, TowerAgain(model, processor, features, len(candidates)))
    unfanned = NoFan(model, prompter, features)
    unprefixed = Evaluator(model, prompter, features)
    unprefixed._prefixes = NoPrefix(model, adapter_for(model))
    mixtures = [[c for c in candidates if c.alpha == alpha] for alpha in dict.fromkeys(c.alpha for c in candidates)]

    def scored(which: Evaluator, groups: Sequence[Sequence[Candidate]], **changes: Any) -> Way:
        def way(sample: Sample) -> list[float]:
            asked = replace(sample, **changes)
            return [score for group in groups for score in which.scores(asked, group, pruning).score]

        return way

    together = scored(evaluator, [candidates])

    def with_gram_anew(sample: Sample) -> list[float]:
        with gram_anew():
            return together(sample)

    return {
        "naive": naive_way(model, processor, prompter, candidates, pruning),
        ALL: together,
        "without cached layers (tower for each candidate)": scored(again, [candidates]),
        "without one-pass scoring (generates)": scored(evaluator, [candidates], metric="exact_match"),
        "without mixtures as rows (one at a time, ratios fanned out)": scored(evaluator, mixtures),
        "without fanning out ratios": scored(unfanned, [candidates]),
        "without both (one candidate at a time)": scored(evaluator, [[candidate] for candidate in candidates]),
        "without the prefix' keys and values": scored(unprefixed, [candidates]),
        "without one matrix of cosines for all stages and ratios": with_gram_anew,
    }


def measured(all_ways: dict[str, Way], samples: Sequence[Sample]) -> tuple[dict[str, list[Spent]], dict[str, int]]:
    """What every way takes on every sample, and how many of its scores differ from those of all savings."""
    spent: dict[str, list[Spent]] = {name: [] for name in all_ways}
    differ = dict.fromkeys(all_ways, 0)
    for way in all_ways.values():
        way(samples[0])
    for sample in samples:
        found = {}
        for name, way in all_ways.items():
            if name == "naive" and sample is not samples[0]:
                way(sample)
            begun = time.perf_counter(), time.process_time()
            found[name] = way(sample)
            spent[name].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        for name, scores in found.items():
            differ[name] += sum(one != other for one, other in zip(scores, found[ALL], strict=True))
    return spent, differ


def limit(model: Any, mixtures: int, candidates: int, pruning: Pruning, text: int) -> float:
    """Processor seconds that one evaluation needs at least, were every product as fast as a large one."""
    config, schedule = model.config.text_config, pruning.schedule
    assert schedule is not None
    width, mlp = config.hidden_size, config.intermediate_size
    flops = 0.0
    for layer, tokens in enumerate(schedule.per_layer):
        rows, n = (mixtures if layer < schedule.starts[0] else candidates), tokens + text
        flops += rows * 2 * (4 * n * width**2 + 2 * n**2 * width + 3 * n * width * mlp)
    large = torch.randn(1024, 1024)
    spent = []
    for _ in range(20):
        begun = time.process_time()
        large @ large
        spent.append(time.process_time() - begun)
    return flops / candidates / (2 * 1024**3 / min(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", action="append", help="default: 64 and 192")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, processor = load_model(str(MODEL))
    adapter = adapter_for(model)
    layers = auto_layers(adapter.vision_layers, adapter.own_layer)
    candidates = default_space(layers, adapter.own_layer).candidates(adapter.vision_layers, adapter.own_layer)
    mixtures = len({candidate.alpha for candidate in candidates})
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        table = write_benchmark(root / "benchmark", {"calibration": arguments.samples, "selection": 1, "test": 1})
        samples = load_samples(table)
        # One question a picture, of all classes in turn.
        by_picture = {s.image: [o for o in samples if o.image == s.image] for s in samples}
        chosen = [of[n % len(of)] for n, of in enumerate(by_picture.values())][: arguments.samples]
        cache_features(model, processor, chosen, root / "cache", FeatureOptions(layers=layers))
        store = FeatureStore.open(root / "cache")
        note = NOTE.format(
            samples=len(chosen),
            candidates=len(candidates),
            mixtures=mixtures,
            torch=torch.__version__,
            threads=arguments.threads,
            machine=platform.machine(),
        )
        print(note, flush=True)
        for budget in arguments.budget or ["64", "192"]:
            pruning = Pruning(schedule_for(model, budget))
            all_ways = ways(model, processor, store, layers, pruning)
            with torch.inference_mode():
                spent, differ = measured(all_ways, chosen)
            evaluations = len(chosen) * len(candidates)
            floor = 1000 * limit(model, mixtures, len(candidates), pruning, 20)
            print(f"| budget {budget} | ms | times (processor) | times (wall) | other scores |")
            print("|---|---:|---:|---:|---:|")
            print(f"| physical limit (FLOPs) | {floor:.2f} | | | |")
            for name, of in spent.items():
                wall, cpu = (
                    statistics.median(one[clock] / other[clock] for one, other in zip(of, spent[ALL], strict=True))
                    for clock in range(2)
                )
                each = 1000 * statistics.median(seconds for _, seconds in of) / len(candidates)
                print(f"| {name} | {each:.1f} | {cpu:.2f} | {wall:.2f} | {differ[name]} of {evaluations} |", flush=True)
            print()
        store.close()


if __name__ == "__main__":
    main()
