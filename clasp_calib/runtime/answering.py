"""One question about one picture or video, answered and timed."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from clasp_calib.common.samples import Given
from clasp_calib.runtime.decoding import Greedy
from clasp_calib.runtime.finite import finite_logits
from clasp_calib.runtime.model_inputs import model_inputs
from clasp_calib.runtime.stats import Pruned, PruningStats


@dataclass(frozen=True)
class Answer:
    """What the model said, how long it took (preprocessing apart), what it was given, and what pruning did."""

    text: str
    seconds: float
    inputs: dict[str, Any] = field(repr=False)
    stats: PruningStats | None = field(repr=False)

    @property
    def kept(self) -> tuple[int, ...]:
        """Visual tokens that each stage kept."""
        return () if self.stats is None else tuple(len(stage.kept(0)) for stage in self.stats.stages)


@torch.inference_mode()
def answer(
    model: Any,
    processor: Any,
    media: "Given | Sequence[Given]",
    prompt: str,
    max_new_tokens: int,
    pruning: AbstractContextManager[Pruned] | None = None,
) -> Answer:
    """Answer greedily, within ``pruning`` (a `clasp` or `prune`) if it is given.

    The first answer of a process pays for warming up, so one token is generated before the clock starts.
    """
    greedy = Greedy(model, processor.tokenizer)
    inputs = model_inputs(model, processor, media, prompt)
    with finite_logits(model, "this question"), pruning or nullcontext() as pruner:
        model.generate(**inputs, **greedy.arguments(1))
        begun = time.perf_counter()
        output = model.generate(**inputs, **greedy.arguments(max_new_tokens))
        seconds = time.perf_counter() - begun
        stats = pruner.stats if pruner else None
    new = output[:, inputs["input_ids"].shape[1] :]
    text: str = processor.batch_decode(new, skip_special_tokens=True)[0].strip()
    return Answer(text, seconds, dict(inputs), stats)


def seen_picture(answered: Answer, processor: Any, picture: Image.Image) -> Image.Image:
    """The picture as the tower saw it, cropped and all; the picture itself where its patches keep no such order."""
    pixels = answered.inputs.get("pixel_values")
    if pixels is None or pixels.ndim != 4 or len(pixels) > 1:
        return picture
    images = getattr(processor, "image_processor", processor)
    mean, spread = (torch.tensor(getattr(images, name)).view(3, 1, 1) for name in ("image_mean", "image_std"))
    values = ((pixels[0].float().cpu() * spread + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(values.permute(1, 2, 0).numpy())
