"""From prepared pictures to the states of the tower, in batches of one shape.

B pictures to the adapter, L layers, T tokens, C channels.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from clasp_calib.cache.origin import Origin
from clasp_calib.cache.prepare import Prepared
from clasp_calib.common.errors import CacheError
from clasp_calib.runtime.adapters import adapter_for
from clasp_calib.runtime.adapters.adapter import Adapter

K = TypeVar("K")


def in_batches(pictures: Iterable[tuple[K, Prepared]], size: int) -> Iterator[list[tuple[K, Prepared]]]:
    """Successive pictures of one shape, at most ``size`` of them together."""
    # Our choice: only neighbours go together, so that the batches, and with them the last bits of the features, are the
    # same when a killed run goes on.
    batch: list[tuple[K, Prepared]] = []
    for key, prepared in pictures:
        if batch and (len(batch) == size or _shape(prepared) != _shape(batch[0][1])):
            yield batch
            batch = []
        batch.append((key, prepared))
    if batch:
        yield batch


@torch.inference_mode()
def states_of(model: Any, batch: Sequence[Prepared], layers: Sequence[int]) -> list[tuple[Tensor, Origin]]:
    """Run the tower over pictures of one shape.

    Args:
        model: its tower is where and in the dtype in which it is to run.
        batch: as `in_batches` makes them.
        layers: which of the states 0..L_v, in the order that they are wanted.

    Returns:
        For each picture its states [L, T, C], on the tower's device and in its dtype, and their origin.

    Raises:
        CacheError: they do not fit on the device.
    """
    adapter, modality = adapter_for(model), batch[0].modality
    place = next(adapter.vision_tower(model, modality).parameters())
    origins = [origin_of(adapter, prepared) for prepared in batch]
    pixels = torch.from_numpy(np.concatenate([prepared.pixels for prepared in batch]))
    each = [origin.tower_sizes(adapter) for origin in origins]
    sizes = {name: torch.cat([sizes[name] for sizes in each]) for name in each[0]}
    try:
        states_BLTC = adapter.capture(model, pixels.to(place.device, place.dtype), modality, layers, **sizes)
    except torch.OutOfMemoryError as error:
        raise CacheError(
            f"{len(batch)} pictures at once do not fit on {place.device} ({error}); "
            "run again with a smaller batch size: what is cached so far stays"
        ) from error
    parts = torch.split(states_BLTC, [origin.pictures for origin in origins])
    return [(part.transpose(0, 1).flatten(1, 2), origin) for part, origin in zip(parts, origins, strict=True)]


def visual_tokens(model: Any, prepared: Prepared) -> int:
    """Visual tokens that a file becomes in a prompt; the tower does not run for it."""
    adapter = adapter_for(model)
    return sum(adapter.tokens(model, _inputs(adapter, prepared), prepared.modality))


def _inputs(adapter: Adapter, prepared: Prepared) -> dict[str, Any]:
    """What `Adapter.pictures` and `Adapter.tokens` look at."""
    sizes = {name: torch.tensor(value) for name, value in prepared.sizes.items()}
    return {adapter.pixel_names[prepared.modality]: prepared.pixels, **sizes}


def origin_of(adapter: Adapter, prepared: Prepared) -> Origin:
    """How the tokens of a prepared picture will be arranged."""
    pictures = adapter.pictures(_inputs(adapter, prepared), prepared.modality)
    return Origin(prepared.modality, pictures, prepared.sizes, prepared.note, prepared.written)


def _shape(prepared: Prepared) -> tuple[Any, ...]:
    return prepared.modality, prepared.pixels.shape
