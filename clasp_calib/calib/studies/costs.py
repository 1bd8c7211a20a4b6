"""What a prefill costs: seconds from the pixels to the first token, and the memory that it needs at its peak."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

import torch

from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.contest import Entrant, encoded, encoded_for
from clasp_calib.common.containing import contained
from clasp_calib.common.progress import track
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.decoding import Greedy


@dataclass(frozen=True)
class PrefillCost:
    """Of one entrant: median seconds, and the peak of bytes allocated beyond what there was before."""

    seconds: float
    peak_bytes: int


@torch.inference_mode()
def prefill_costs(
    model: Any,
    processor: Any,
    prompter: Prompter,
    entrants: Sequence[Entrant],
    samples: Sequence[Sample],
    rows: int = 1,
) -> list[PrefillCost]:
    """Measure ``generate`` of one token, tower and method included, preprocessing not.

    Entrants take turns on every sample, so that a drift of the machine's speed hits all alike; the first sample only
    warms up. Memory is measured apart from time, on the first sample.

    Args:
        model: in evaluation mode.
        processor: the model's.
        prompter: the model's.
        entrants: each is measured.
        samples: to take turns on.
        rows: size of the batch, which holds one sample so many times.
    """
    how, sizes = Greedy(model, prompter.tokenizer).arguments(1), Sizes(model, processor)
    seconds: list[list[float]] = [[] for _ in entrants]
    peaks = []
    for number, sample in enumerate(track([*samples[:1], *samples], "timing", len(samples) + 1)):
        plain = encoded(model, processor, prompter, sample)
        for entrant, spent in zip(entrants, seconds, strict=True):
            alone = encoded_for(entrant, model, sizes, prompter, sample) if entrant.shown else plain
            inputs = {name: torch.cat([of] * rows) for name, of in alone.items()}
            with contained(f"timing the sample {sample.id!r}"), entrant.apply(model, sample, entrant.seeds[0]):
                _wait(model)
                begun = time.perf_counter()
                model.generate(**inputs, **how)
                _wait(model)
                if number:
                    spent.append(time.perf_counter() - begun)
                else:
                    peaks.append(_peak(model, {**inputs, **how}))
    return [PrefillCost(median(spent), peak) for spent, peak in zip(seconds, peaks, strict=True)]


def _wait(model: Any) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def _peak(model: Any, inputs: Any) -> int:
    if model.device.type == "cuda":
        before = torch.cuda.memory_allocated(model.device)
        torch.cuda.reset_peak_memory_stats(model.device)
        model.generate(**inputs)
        return torch.cuda.max_memory_allocated(model.device) - before
    # The allocator of a CPU keeps no peak; its allocations are added up as the profiler saw them.
    with (
        _silent_profiler(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        model.generate(**inputs)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), default=0)


@contextmanager
def _silent_profiler() -> Iterator[None]:
    """Without the lines that the profiler's library writes to standard error whatever its log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
