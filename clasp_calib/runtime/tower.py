"""Fusion in a live vision tower: the state that the model projects becomes a mixture of all states.

B rows of the batch, R rows that pictures are to the tower, L states of the tower, T its tokens, C its width.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clasp_calib.common.errors import ModelError
from clasp_calib.runtime.adapters.adapter import Adapter
from clasp_calib.runtime.adapters.towers import recorded_states
from clasp_calib.runtime.attention import PRUNED_ALREADY
from clasp_calib.runtime.finite import all_finite
from clasp_calib.runtime.fusion import fuse
from clasp_calib.runtime.owners import noted_owners


@contextmanager
def fused_tower(model: nn.Module, adapter: Adapter, alpha_BL: Tensor) -> Iterator[None]:
    """Let the towers of ``model`` give mixtures of their states.

    Args:
        model: what ``adapter`` is for.
        adapter: tells towers and layers.
        alpha_BL: weights over the states, one row for all pictures or one for every row of the batch.

    Raises:
        ModelError: the number of weights is not the number of states, some are not finite, or the towers give mixtures
            already.
    """
    layers = adapter.vision_layers + 1
    if alpha_BL.shape[1] != layers:
        raise ModelError(
            f"alpha has {alpha_BL.shape[1]} weights; expected {layers}, one for the tower's embeddings and "
            f"one for each of its {layers - 1} blocks"
        )
    if not bool(all_finite(alpha_BL)):
        raise ModelError("alpha has weights that are not finite numbers; give a mixture of layers")
    hooks = [
        hook for modality in adapter.towers for hook in adapter.vision_tower(model, modality)._forward_hooks.values()
    ]
    if any(getattr(hook, "__qualname__", "").startswith(fused_tower.__qualname__) for hook in hooks):
        raise ModelError(PRUNED_ALREADY)
    used = alpha_BL.ne(0).any(0).nonzero().flatten().tolist()

    with ExitStack() as undo:
        owners = None
        if len(alpha_BL) > 1:
            owners = undo.enter_context(noted_owners(model, adapter, len(alpha_BL), "alpha"))
        for tower, modalities in _modalities_by_tower(model, adapter).items():
            states: dict[int, Tensor] = {}
            undo.enter_context(recorded_states(adapter.vision_blocks(model, modalities[0]), used, states))

            def mix(
                tower: nn.Module,
                _: tuple[Any, ...],
                call: dict[str, Any],
                output: Any,
                states: dict[int, Tensor] = states,
                modalities: list[str] = modalities,
            ) -> Any:
                maps = [adapter.aligned(states.pop(layer), layer, call) for layer in used]
                rows = len(maps[0])
                alpha_RL = alpha_BL.expand(rows, -1) if owners is None else alpha_BL[owners.of(modalities, rows)]
                maps_RLTC = torch.stack([map_RTC.reshape(rows, -1, map_RTC.shape[-1]) for map_RTC in maps], dim=1)
                fused_RTC = fuse(maps_RLTC, alpha_RL[:, used])
                return adapter.replace_own(tower, output, fused_RTC.reshape(maps[0].shape), call)

            undo.callback(tower.register_forward_hook(mix, with_kwargs=True).remove)
        yield


def _modalities_by_tower(model: nn.Module, adapter: Adapter) -> dict[nn.Module, list[str]]:
    found: dict[nn.Module, list[str]] = {}
    for modality in adapter.pixel_names:
        found.setdefault(adapter.vision_tower(model, modality), []).append(modality)
    return found
