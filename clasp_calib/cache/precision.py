"""How features are kept: float16, bfloat16 bit for bit, or int8 with a scale for 64 channels; and pixels in bytes.

Shape suffixes: L layers, T tokens, C channels, G groups of channels with one scale.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clasp_calib.common.errors import CacheError
from clasp_calib.runtime.finite import ADVICE

GROUP = 64
"""Channels that share a scale in int8. Smaller groups err less and are larger; at 64 a value takes 1.03 bytes."""
_LEVELS = 127


class Stored(NamedTuple):
    """Features of one picture in the form in which they lie on the disk, C-contiguous."""

    data_LTC: npt.NDArray[Any]
    """float16; uint16 (the bits of bfloat16); int8; uint8 for pixels."""
    scale_LTG: npt.NDArray[np.float16] | None = None
    """int8 only: what a group's integers are multiplied with."""

    def at(self, layers: slice | list[int]) -> "Stored":
        """Some of the layers: a view for a slice; C-contiguous for a list, copied unless it is all in their order."""
        if isinstance(layers, slice):
            return Stored(*(part[layers] for part in self.parts))
        same = layers == list(range(len(self.data_LTC)))
        return Stored(*(np.ascontiguousarray(part if same else part[layers]) for part in self.parts))

    @property
    def parts(self) -> list[npt.NDArray[Any]]:
        """The arrays that there are: the values, and the scales if there are any."""
        return [self.data_LTC] if self.scale_LTG is None else [self.data_LTC, self.scale_LTG]


@dataclass(frozen=True)
class Precision:
    """One way to keep features; see `PRECISIONS`."""

    name: str
    data: np.dtype[Any]
    """What the values of a slab are for numpy."""
    grouped: bool = False

    def encode(self, features_LTC: Tensor) -> Stored:
        """Bring features into this form.

        Args:
            features_LTC: floating [L, T, C] on any device.

        Raises:
            PrecisionError: a layer has values that this form cannot hold.
        """
        if self.grouped:
            return _quantise(features_LTC)
        halves_LTC = features_LTC.to(getattr(torch, self.name))
        _check_finite(halves_LTC, features_LTC, self.name)
        halves_LTC = halves_LTC.cpu().contiguous()
        return Stored((halves_LTC.view(torch.uint16) if self.name == "bfloat16" else halves_LTC).numpy())

    def decode(self, stored: Stored) -> Tensor:
        """The values: float16, bfloat16, or float32 for int8 (exact: an int8 times a float16); pixels as they are."""
        data_LTC = torch.from_numpy(stored.data_LTC)
        if stored.scale_LTG is None:
            return data_LTC.view(torch.bfloat16) if self.name == "bfloat16" else data_LTC
        scale_LTC = torch.from_numpy(stored.scale_LTG).float().repeat_interleave(GROUP, -1)
        return data_LTC.float() * scale_LTC[..., : data_LTC.shape[-1]]


class PrecisionError(CacheError):
    """A layer of a picture has values that cannot be kept: which layer, for whoever names the picture."""

    def __init__(self, layer: int, largest: float, precision: str):
        self.layer = layer
        """Position of the layer among those that were to be kept."""
        if math.isfinite(largest):
            other = "" if precision == "bfloat16" else ", or keep features in bfloat16 in another directory"
            super().__init__(f"values up to {largest:.4g}, which {precision} cannot hold; leave this layer out{other}")
        else:
            super().__init__(f"numbers that are not finite, as the tower made them; {ADVICE}")


PRECISIONS = {
    "float16": Precision("float16", np.dtype("<f2")),
    "bfloat16": Precision("bfloat16", np.dtype("<u2")),
    "int8": Precision("int8", np.dtype("i1"), grouped=True),
}

PIXELS = Precision("uint8", np.dtype("u1"))
"""Of what is cached before the encoder, as it is; see `clasp_calib.cache.pixels`."""


def precision_of(name: str) -> Precision:
    """The precision of a name: one of `PRECISIONS`, or `PIXELS`.

    Raises:
        CacheError: there is none.
    """
    if name == PIXELS.name:
        return PIXELS
    if name not in PRECISIONS:
        raise CacheError(f"cannot keep features as {name!r}; expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def _check_finite(kept_LTC: Tensor, features_LTC: Tensor, name: str) -> None:
    finite_L = kept_LTC.isfinite().flatten(1).all(-1)
    if not bool(finite_L.all()):
        layer = int((~finite_L).nonzero()[0])
        raise PrecisionError(layer, features_LTC[layer].abs().max().item(), name)


def _quantise(features_LTC: Tensor) -> Stored:
    layers, tokens, channels = features_LTC.shape
    groups = -(-channels // GROUP)
    padded_LTC = torch.nn.functional.pad(features_LTC.float(), (0, groups * GROUP - channels))
    values_LTGX = padded_LTC.view(layers, tokens, groups, GROUP)
    # The scale is rounded to float16 before it is used, and never to zero, so that what is decoded is off by
    # half a step at most, or by one where rounding made the largest value 128 steps.
    scale_LTG = (values_LTGX.abs().amax(-1) / _LEVELS).to(torch.float16)
    _check_finite(scale_LTG, features_LTC, "int8")
    step_LTG1 = scale_LTG.clamp(min=torch.finfo(torch.float16).smallest_normal).unsqueeze(-1)
    codes_LTGX = (values_LTGX / step_LTG1.float()).round().clamp(-_LEVELS, _LEVELS).to(torch.int8)
    codes_LTC = codes_LTGX.view(layers, tokens, groups * GROUP)[..., :channels]
    return Stored(codes_LTC.cpu().contiguous().numpy(), step_LTG1.squeeze(-1).cpu().contiguous().numpy())
