"""How pictures are encoded and kept: the options of a feature cache, checked before any work begins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, get_args

from clasp_calib.common.errors import CacheError, InputError

PrecisionName = Literal["float16", "bfloat16", "int8"]
Durability = Literal["process", "power"]
"""What an acknowledged picture survives: the end of the process however it comes, or a power cut as well."""
Layout = Literal["auto", "direct", "portable"]
SHARD_BYTES = 256 * 2**20
_FLAGS = {"batch_size": "--batch", "layout": "--mode"}
"""Flags that are not named like their field."""


@dataclass(frozen=True)
class FeatureOptions:
    """How `clasp_calib.cache.encode.cache_features` encodes pictures and what it keeps.

    The tower runs on the device and in the dtype that the model has.

    Raises:
        InputError: a value that is out of range, or an option that does not apply to pixels.
    """

    layers: Sequence[int] | Literal["auto"] = "auto"
    """Indices into ``hidden_states``, 0 (the embeddings) to L_v; ``"auto"`` takes `auto_layers`. Kept ascending."""
    precision: PrecisionName = "float16"
    """What layers are kept in, whatever they were computed in."""
    batch_size: int = 8
    """Pictures of one forward pass; fewer where neighbours differ in shape."""
    workers: int | None = None
    """Processes that decode and preprocess; 0 for threads of this one; None chooses by the number of pictures."""
    verify: bool = False
    """First drop what is damaged in the cache, so that it is encoded again."""
    durability: Durability = "process"
    """``"process"`` loses nothing when a process is killed; ``"power"`` loses nothing in a power cut either."""
    layout: Layout = "auto"
    """Of a new cache: ``"direct"`` is read at the speed of memory and needs a local file system, ``"portable"`` works
    on any. ``"auto"`` chooses by the file system, or keeps the layout of a cache that is there."""
    pixels: bool = False
    """Keep what the tower is shown instead of its layers; the tower then runs whenever a picture is looked at."""
    shard_bytes: int = SHARD_BYTES
    """Size of one file of the cache; at least one picture goes into each."""

    def __post_init__(self) -> None:
        """Check every field by itself, and that no field is set that the others make useless."""
        if not (isinstance(self.layers, str) and self.layers == "auto"):
            try:
                layers = tuple(sorted({index(layer) for layer in self.layers}))
            except TypeError:
                layers = ()
            if not layers or layers[0] < 0:
                raise _wrong("layers", self.layers, "'auto', or indices of hidden states from 0 (the embeddings) on")
            object.__setattr__(self, "layers", layers)
        for name, choices in (("precision", PrecisionName), ("durability", Durability), ("layout", Layout)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise _wrong(name, value, f"one of {', '.join(get_args(choices))}")
        for name, least in (("batch_size", 1), ("workers", 0), ("shard_bytes", 0)):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= least) and (name, value) != ("workers", None):
                raise _wrong(name, value, f"a number of at least {least}")
        if self.pixels and (self.layers != "auto" or self.precision != "float16"):
            raise InputError(
                "pixels (--pixels) keeps bytes of pictures and no layers, so layers (--layers) and precision "
                "(--precision) do not apply; leave them out, or leave pixels out"
            )

    def layers_of(self, vision_layers: int, own_layer: int, taps: Sequence[int] = ()) -> tuple[int, ...]:
        """The layers that are kept of a tower, always with its ``taps``; arguments as of `auto_layers`.

        Raises:
            CacheError: the tower does not have one of them.
        """
        if isinstance(self.layers, str):
            return auto_layers(vision_layers, own_layer, taps)
        if self.layers[-1] > vision_layers:
            raise CacheError(
                f"layers (--layers) is {list(self.layers)}; expected some of 0 (the embeddings) to {vision_layers} "
                "(the last block of this tower)"
            )
        return tuple(sorted({*self.layers, *taps}))


DEFAULTS = FeatureOptions()


def auto_layers(vision_layers: int, own_layer: int, taps: Sequence[int] = ()) -> tuple[int, ...]:
    """Candidate layers from shallow to deep, always with the model's own: (3, 9, 15, 20, 23) for CLIP-L.

    With Qwen3-VL's deepstack they are (3, 9, 17, 25, 27).

    Args:
        vision_layers: blocks of the vision tower, L_v.
        own_layer: the model's ``vision_feature_layer`` as an index into ``hidden_states``, 0..L_v.
        taps: layers that the model projects by themselves too (a deepstack), so that they are kept in any case.

    Returns:
        Ascending indices into ``hidden_states``; at most five with up to four taps, fewer for a tower too small.

    Raises:
        CacheError: the model's own layer is not one of its layers.
    """
    if not 0 <= own_layer <= vision_layers:
        raise CacheError(f"own layer {own_layer} of a tower with layers 0 to {vision_layers}; give one of these")
    # Our choice: the middles of the first three quarters, and five sixths; nothing at the embeddings.
    depths = (1 / 8, 3 / 8, 5 / 8, 5 / 6)
    spread = {max(1, math.floor(depth * vision_layers + 0.5)) for depth in depths}
    # Our choice: a tap takes the place of the nearest, the deeper of two, so that it takes no room of its own.
    spread -= {own_layer}
    for tap in taps:
        if spread and tap != own_layer:
            _, nearest = min((abs(layer - tap), -layer) for layer in spread)
            spread.remove(-nearest)
    return tuple(sorted({*spread, *taps, own_layer}))


def _wrong(name: str, value: object, expected: str) -> InputError:
    flag = _FLAGS.get(name, f"--{name}")
    field = name if name == "shard_bytes" else f"{name} ({flag})"
    return InputError(f"{field} is {value!r}; expected {expected}")
