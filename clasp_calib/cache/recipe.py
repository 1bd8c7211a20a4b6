"""What is kept of a picture and how it is made: layers of the vision tower, or the pixels that the tower is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clasp_calib.cache.feature_options import FeatureOptions
from clasp_calib.cache.fingerprint import encoder_fingerprint, pictures_fingerprint
from clasp_calib.cache.form import Form
from clasp_calib.cache.origin import Origin
from clasp_calib.cache.pixels import LAYER, PLANES, PixelPreparer, size_of_all
from clasp_calib.cache.precision import PIXELS, precision_of
from clasp_calib.cache.prepare import Prepared, Preparer
from clasp_calib.cache.states import states_of
from clasp_calib.runtime.adapters import adapter_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


@dataclass(frozen=True)
class Recipe:
    """From a file to what the store is given."""

    encoder: str
    """Fingerprint of all that the result depends on besides the picture."""
    layers: tuple[int, ...]
    form: Form
    prepare: Preparer
    encode: Callable[[Sequence[Prepared]], list[tuple[Tensor, Origin]]]
    """Of pictures of one shape [L, T, C] each, to be kept in the precision of the form."""


def recipe_for(model: "PreTrainedModel", processor: "ProcessorMixin", options: FeatureOptions) -> Recipe:
    """The recipe for a model.

    Args:
        model: its vision towers run where and in the dtype in which they are; not looked at for pixels.
        processor: the model's own.
        options: what is to be kept.

    Raises:
        CacheError: the tower lacks a layer, or the processor's pixels cannot be kept.
    """
    if options.pixels:
        rows, columns = size_of_all(processor)
        prepare = PixelPreparer(processor, {"image": "pixel_values"})
        return Recipe(
            pictures_fingerprint(processor), (LAYER,), Form(columns, PIXELS, PLANES * rows), prepare, _as_they_are
        )
    adapter = adapter_for(model)
    layers = options.layers_of(adapter.vision_layers, adapter.own_layer, adapter.taps)
    return Recipe(
        encoder_fingerprint(model, processor),
        layers,
        Form(adapter.vision_width, precision_of(options.precision), adapter.patch_tokens),
        Preparer.of(processor, adapter),
        lambda batch: states_of(model, batch, layers),
    )


def _as_they_are(batch: Sequence[Prepared]) -> list[tuple[Tensor, Origin]]:
    """Planes of pixels, one below the other."""
    return [(torch.from_numpy(made.pixels).flatten(1, 2), Origin(note=made.note)) for made in batch]
