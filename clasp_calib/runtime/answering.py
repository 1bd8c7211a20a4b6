"""One question about one picture, answered and timed."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from clasp_calib.runtime.pruner import Calibrated, clasp


@dataclass(frozen=True)
class Answer:
    """What the model said, how many visual tokens each stage kept, and how long it took (preprocessing apart)."""

    text: str
    kept: tuple[int, ...]
    seconds: float


@torch.inference_mode()
def answer(
    model: Any,
    processor: Any,
    picture: Image.Image,
    prompt: str,
    max_new_tokens: int,
    artifact: Calibrated | None = None,
    budget: str = "",
    label: str = "",
) -> Answer:
    """Answer greedily; with an artifact, under its ``budget`` and as it says for the class ``label``.

    The first answer of a process pays for warming up, so one token is generated before the clock starts.
    """
    inputs = processor(images=picture, text=prompt, return_tensors="pt").to(model.device, model.dtype)
    with clasp(model, artifact, budget=budget, classes=label) if artifact else nullcontext() as pruner:
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
        begun = time.perf_counter()
        output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        seconds = time.perf_counter() - begun
    new = output[:, inputs["input_ids"].shape[1] :]
    text: str = processor.batch_decode(new, skip_special_tokens=True)[0].strip()
    kept = tuple(artifact.counts(budget)) if artifact and pruner else ()
    return Answer(text, kept, seconds)
