"""Seconds of an unpruned answer, and of one candidate's evaluation, on one core in float32."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.evaluator import Pruning
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.budgeting import schedule_for
from clasp_calib.runtime.pictures import load_picture
from clasp_calib.search.space import OWN
from tools.reference.measuring.bench import Bench
from tools.reference.measuring.settings import RHOS

BUDGET = 64
SAMPLES = 15


@dataclass(frozen=True)
class Speed:
    """Medians of wall time over samples, on one thread."""

    answer_seconds: float
    """From the picture's pixels to the answer's text: vision tower, prefill, decoding."""
    candidate_ms: float
    """One candidate on one sample, alone, from cached features."""
    shared_candidate_ms: float
    """The same for each of all mixtures and ratios together, as a search asks for them."""


@torch.inference_mode()
def measure_speed(bench: Bench, split: str, pictures: int, samples: int = SAMPLES) -> Speed:
    """Time a model; the first sample only warms up.

    Args:
        bench: the model.
        split: whose questions are asked.
        pictures: of the split.
        samples: questions to time, spread over the split.

    Raises:
        InputError: an unknown split.
    """
    all_samples = bench.samples(split, pictures)
    chosen = all_samples[:: max(1, len(all_samples) // (samples + 1))][: samples + 1]
    evaluator, _ = bench.evaluators(split, chosen)
    model, processor = bench.model, bench.processor
    prompter = Prompter(processor, model)
    pruning = Pruning(schedule_for(model, BUDGET))
    alone = [Candidate(OWN, bench.mixtures[OWN], 0.5)]
    together = [Candidate(name, alpha, rho) for name, alpha in bench.mixtures.items() for rho in RHOS]

    def answer(sample: Sample) -> None:
        pixels = load_picture(sample.picture)
        inputs = processor(images=pixels, text=prompter.text(sample.question), return_tensors="pt")
        output_1S = model.generate(**inputs, do_sample=False, max_new_tokens=8)
        prompter.decode(output_1S[:, inputs["input_ids"].shape[1] :])

    with _one_thread():
        return Speed(
            _median(answer, chosen),
            1000 * _median(lambda sample: evaluator.scores(sample, alone, pruning), chosen),
            1000 * _median(lambda sample: evaluator.scores(sample, together, pruning), chosen) / len(together),
        )


def _median(act: Callable[[Sample], object], samples: Sequence[Sample]) -> float:
    seconds = []
    for sample in samples:
        begun = time.perf_counter()
        act(sample)
        seconds.append(time.perf_counter() - begun)
    return median(seconds[1:] or seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
