"""Seconds for one answer from the picture on: vision tower, prefill, decoding."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import torch

from clasp_calib.calib.scoring.candidate import Candidate
from clasp_calib.calib.scoring.prompting import Prompter
from clasp_calib.calib.scoring.sizes import Sizes
from clasp_calib.calib.studies.comparison import Setting
from clasp_calib.common.containing import contained
from clasp_calib.common.samples import Sample
from clasp_calib.runtime.decoding import Greedy


@torch.inference_mode()
def seconds_per_answer(
    model: Any, processor: Any, prompter: Prompter, settings: Sequence[Setting], samples: Sequence[Sample]
) -> dict[str, float]:
    """Median wall seconds of ``generate`` at batch 1, picture preprocessing not counted.

    Settings take turns on every sample, so that a drift of the machine's speed hits all alike; the first sample only
    warms up.
    """
    how, sizes = Greedy(model, prompter.tokenizer).arguments(8), Sizes(model, processor)
    times: Mapping[str, list[float]] = {setting.name: [] for setting in settings}
    for number, sample in enumerate([*samples[:1], *samples]):
        with contained(f"timing the sample {sample.id!r}"):
            shown = {setting.name: sizes.shown(sample, _candidate(setting, sample).downsample) for setting in settings}
            plain = prompter.inputs(model, sample)
            for setting in settings:
                seen = shown[setting.name]
                inputs = plain if seen is sample else prompter.inputs(model, seen)
                begun = time.perf_counter()
                with applied(model, setting, sample):
                    model.generate(**inputs, **how)
                if number:
                    times[setting.name].append(time.perf_counter() - begun)
    return {name: median(values) for name, values in times.items() if values}


def _candidate(setting: Setting, sample: Sample) -> Candidate:
    return setting.candidates[str(sample.label)]


def applied(model: Any, setting: Setting, sample: Sample) -> AbstractContextManager[Any]:
    """Prune the live model as a setting says for the sample's class; yields a `Pruner`, or ``None`` if it keeps all."""
    candidate = _candidate(setting, sample)
    return setting.pruning.applied(model, sample, [candidate], alpha_BL=torch.tensor([candidate.alpha]))
