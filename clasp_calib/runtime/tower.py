"""Fusion in a live vision tower: the state that the model projects becomes a mixture of all states.

B rows of the batch, R rows that pictures are to the tower, L states of the tower, T its tokens, C its width.
"""

from collections.abc import Iterator, Mapping
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
from clasp_calib.runtime.generation import watched_generate
from clasp_calib.runtime.stages import expand_rows


class _Owners:
    """Which row of the batch each row of the tower belongs to: pictures come in the order of their rows."""

    def __init__(self, model: nn.Module, adapter: Adapter, rows: int) -> None:
        self._model, self._adapter, self._rows = model, adapter, rows
        self._owner_by_modality: dict[str, Tensor] = {}

    def see(self, ids_BS: Tensor | None, inputs: Mapping[str, Any]) -> None:
        """Find the owners of the pictures in these arguments, for the next time that their tower runs."""
        self._owner_by_modality = {}
        for modality, pixels in self._adapter.pixel_names.items():
            if ids_BS is not None and inputs.get(pixels) is not None:
                visual_B = (ids_BS == self._adapter.visual_token_ids[modality]).sum(1).tolist()
                tokens = self._adapter.tokens(self._model, inputs, modality)
                rows = self._adapter.rows(inputs, modality)
                owners = expand_rows(torch.arange(self._rows), len(visual_B), "alpha")
                owner = owners[_rows_of(tokens, visual_B)]
                self._owner_by_modality[modality] = owner.repeat_interleave(torch.tensor(rows))

    def of(self, modalities: list[str], rows: int) -> Tensor:
        """The row of the batch of every row of the tower; without prompts, one picture for each."""
        for modality in modalities:
            if modality in self._owner_by_modality:
                return self._owner_by_modality.pop(modality)
        return expand_rows(torch.arange(self._rows), rows, "alpha")


def _rows_of(tokens: list[int], visual_B: list[int]) -> Tensor:
    """The row of the batch that each picture stands in, from the visual tokens of both; long."""
    ends = torch.tensor(visual_B).cumsum(0)
    after = torch.tensor(tokens).cumsum(0)
    if not len(after) or int(after[-1]) != int(ends[-1]):
        raise ModelError(
            f"the prompts hold {int(ends[-1])} visual tokens, the {len(tokens)} pictures given make {sum(tokens)}; "
            "expected one block of visual tokens for every picture"
        )
    return torch.searchsorted(ends, after)


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
    owners = _Owners(model, adapter, len(alpha_BL))

    with ExitStack() as undo:
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
                alpha_RL = alpha_BL.expand(rows, -1) if len(alpha_BL) == 1 else alpha_BL[owners.of(modalities, rows)]
                maps_RLTC = torch.stack([map_RTC.reshape(rows, -1, map_RTC.shape[-1]) for map_RTC in maps], dim=1)
                fused_RTC = fuse(maps_RLTC, alpha_RL[:, used])
                return adapter.replace_own(tower, output, fused_RTC.reshape(maps[0].shape), call)

            undo.callback(tower.register_forward_hook(mix, with_kwargs=True).remove)
        if len(alpha_BL) > 1:

            def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                owners.see(args[0] if args else kwargs.get("input_ids"), kwargs)

            multimodal = adapter.multimodal_model(model)
            undo.callback(multimodal.register_forward_pre_hook(see, with_kwargs=True).remove)
            undo.enter_context(watched_generate(model, owners.see))
        yield


def _modalities_by_tower(model: nn.Module, adapter: Adapter) -> dict[nn.Module, list[str]]:
    found: dict[nn.Module, list[str]] = {}
    for modality in adapter.pixel_names:
        found.setdefault(adapter.vision_tower(model, modality), []).append(modality)
    return found
